"""
Check your data before you train
================================

A test image that is also a training image, a patient on both sides of the split, a mistyped label: such mistakes do not
stop a training run, they spoil its result. Here we plant some in a small data set and look for them, as
``medbolt data check`` does.
"""

# %%
# Sixty photographs in files, and a table that says what they show. A test patient becomes a training patient, a
# training image is saved once more under a test name, a file ends too early, and one grade is mistyped.

from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
import pandas as pd
from PIL import Image

from medbolt.core import SyntheticFundus
from medbolt.core.data.check import check_manifest
from medbolt.core.data.check_report import render_text

data = SyntheticFundus(size=60, image_size=128)
folder = TemporaryDirectory()
root = Path(folder.name)
rows = []
for index in range(len(data)):
    sample = data[index]
    Image.fromarray(sample["image"].permute(1, 2, 0).numpy()).save(root / f"{sample['id']}.jpg")
    split = "train" if index < 36 else "val" if index < 42 else "test"
    rows.append({"file": f"{sample['id']}.jpg", "grade": sample["target"], "patient": sample["group"], "split": split})
table = pd.DataFrame(rows).astype(str)

table.loc[50, "patient"] = table.loc[3, "patient"]
Image.open(root / table.file[7]).save(root / table.file[55], quality=60)
truncated = root / table.file[20]
truncated.write_bytes(truncated.read_bytes()[:1000])
table.loc[11, "grade"] = "O"
table.to_csv(root / "table.csv", index=False)

# %%
# On the command line: ``medbolt data check table.csv --image file --label grade --group patient``, and
# ``--output check.html`` for a page with the pictures.

check = check_manifest(
    root / "table.csv", image="file", label="grade", class_names=list("01234"), group="patient", split="split"
)
print(render_text(check).replace(str(root), "."))

# %%
# The copy is found although it was compressed once more. Photographs that merely look alike can be reported too: look
# at the pairs, and decide.

pairs = next(finding.pairs for finding in check.findings if "different splits" in finding.message)
figure, axes = plt.subplots(2, len(pairs), figsize=(2 * len(pairs), 4.6), layout="constrained", squeeze=False)
for column, pair in zip(axes.T, pairs, strict=True):
    for axis, position in zip(column, pair, strict=True):
        axis.imshow(check.images[position].permute(1, 2, 0))
        axis.set_title(f"{table.file[position]}\n{table.split[position]}", fontsize="small")
        axis.axis("off")
plt.show()
