"""
Prepare large photographs once
==============================

A fundus camera gives a bright disc somewhere on a large black frame. Decoding and resizing such photographs in every
epoch takes longer than training on them. ``medbolt data prepare`` does it once: it finds the field of view, cuts out
the square around it, resizes, and writes a store that every data module reads at memory speed.
"""

# %%
# Twenty-four photographs as a clinic's export might have them: wide frames, the eye off centre, cut off at the top and
# at the bottom, with a label in a corner. The manifest has one line an image.

import time
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
import pandas as pd
from PIL import Image, ImageDraw

from medbolt.core import SyntheticFundus, TableDataModule
from medbolt.core.data.crop import field_of_view
from medbolt.core.data.prepare import prepare

fundus = SyntheticFundus(size=24, image_size=256)
folder = TemporaryDirectory()
root = Path(folder.name)
rows = []
for index in range(len(fundus)):
    sample = fundus[index]
    eye = Image.fromarray(sample["image"].permute(1, 2, 0).numpy()).resize((1100, 1100))
    frame = Image.new("RGB", (1800, 1000), (4, 3, 3))
    frame.paste(eye, (200 + 20 * index, -50))
    ImageDraw.Draw(frame).text((20, 940), f"{sample['id']}  50 deg", fill="white", font_size=40)
    frame.save(root / f"{sample['id']}.jpg", quality=90)
    rows.append({"file": f"{sample['id']}.jpg", "grade": sample["target"], "patient": sample["group"]})
pd.DataFrame(rows).to_csv(root / "table.csv", index=False)

# %%
# On the command line: ``medbolt data prepare table.csv --image file --output store --size 128 --crop-circle``. Stopped
# in the middle, it goes on where it was when it is run again.

data = TableDataModule(root / "table.csv", image="file", label="grade", group="patient")
plan = prepare(data, root / "store", size=128, crop_circle=True)
print(f"{len(plan.ids)} images, {plan.size / 1e6:.1f} MB")

# %%
# Before and after: the field of view that was found (dashed), and the picture in the store.

prepared = TableDataModule(root / "table.csv", image="file", label="grade", group="patient", store=root / "store")
before, after = data.dataset("train"), prepared.dataset("train")
figure, axes = plt.subplots(2, 4, figsize=(9, 4), layout="constrained")
for number, (above, below) in enumerate(axes.T):
    image = before[number]["image"]
    circle = field_of_view(image)
    above.imshow(image.permute(1, 2, 0))
    above.add_patch(plt.Circle((circle.x, circle.y), circle.radius, fill=False, color="white", linestyle="--"))
    below.imshow(after[number]["image"].permute(1, 2, 0))
    above.axis("off")
    below.axis("off")
plt.show()

# %%
# What it saves: the time to read an image.

for name, dataset in {"photographs": before, "store": after}.items():
    start = time.perf_counter()
    for number in range(len(dataset)):
        _ = dataset[number]
    print(f"{name}: {(time.perf_counter() - start) / len(dataset) * 1e3:.2f} ms an image")
