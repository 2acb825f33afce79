"""
SyntheticFundus: photographs whose truth is known
=================================================

:class:`~medbolt.core.SyntheticFundus` draws fundus photographs with diabetic retinopathy from nothing but a seed. Every
method of medbolt runs on it without a download, and its result can be checked against the truth: the grade, the lesions
that make it, what each of several raters drew, the camera, the population and a report sentence.
"""

# %%
# Grades
# ------
# The grade follows from the lesions by a simplified International Clinical Diabetic Retinopathy severity scale. Even
# samples are right eyes, odd ones left eyes of the same patient.

import matplotlib.pyplot as plt
import numpy as np
import torch

from medbolt.core import SyntheticFundus

BALANCED = (1, 1, 1, 1, 1)
data = SyntheticFundus(size=1000, image_size=256, prevalence=BALANCED)


def show(axes, image, title=""):
    axes.imshow(np.moveaxis(np.asarray(image), 0, -1))
    axes.set_title(title, fontsize=8)
    axes.axis("off")


def find(grade, domain=0, skip=0):
    return int(torch.where((data.targets == grade) & (data.domains == domain))[0][skip])


_, panels = plt.subplots(1, 5, figsize=(12, 2.8), layout="constrained")
for grade, panel in enumerate(panels):
    show(panel, data[find(grade)]["image"], data.class_names[grade].replace(" diabetic", "\ndiabetic"))

# %%
# Each sample comes with a report sentence, written from the same counts.

for grade in range(5):
    print(data.report(find(grade)))

# %%
# Cameras
# -------
# The same eye, with the same lesions, through each of the four camera domains. Choosing other cameras changes the
# photographs and the mix of populations, never the lesions.

_, panels = plt.subplots(2, 4, figsize=(10, 5.2), layout="constrained")
for domain, column in enumerate(panels.T):
    camera = SyntheticFundus(size=1000, image_size=256, prevalence=BALANCED, domains=[domain])
    for panel, grade in zip(column, (2, 4), strict=True):
        show(panel, camera[find(grade)]["image"], f"{camera.domain_names[domain]}, grade {grade}")

# %%
# Lesion masks
# ------------
# ``mask`` holds microaneurysms, haemorrhages, hard and soft exudates. ``truth`` also knows new vessels and preretinal
# haemorrhages, the vessel tree, and more.

index = find(4, skip=2)
sample, truth = data[index], data.truth(index)
_, panels = plt.subplots(1, 3, figsize=(10, 3.6), layout="constrained")
show(panels[0], sample["image"], "photograph")
show(panels[1], sample["image"], "lesions")
colours = ("lime", "deepskyblue", "magenta", "white", "yellow", "cyan")
for mask, name, colour in zip(truth.lesions, data.lesion_names, colours, strict=True):
    if mask.any():
        panels[1].contour(mask, levels=[0.5], colors=colour, linewidths=1)
    panels[1].plot([], [], color=colour, label=name)
panels[1].legend(fontsize=6, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=3, facecolor="grey")
show(panels[2], truth.vessels[None].repeat(3, 1, 1) * 255, "vessels")

# %%
# Raters
# ------
# Each rater outlines disc and cup (dashed) in a personal style, the same in every image; black is the truth. The
# style's bias shows in the average cup area.

index = find(0)
sample, truth = data[index], data.truth(index)
_, (left, right) = plt.subplots(1, 2, figsize=(8, 3.6), layout="constrained")
show(left, sample["image"], "outlines of the optic disc and cup")
for rater, outline in enumerate([*sample["raters"], truth.outline]):
    colour = "black" if rater == data.num_raters else f"C{rater}"
    left.contour(outline, levels=[0.5], colors=colour, linewidths=1)
    left.contour(outline, levels=[1.5], colors=colour, linewidths=1, linestyles="dashed")
left.set_xlim(truth.disc[0] - 32, truth.disc[0] + 32)
left.set_ylim(truth.disc[1] + 32, truth.disc[1] - 32)

areas = np.array([(data[i]["raters"] == 2).sum((1, 2)) / (data.truth(i).outline == 2).sum() for i in range(40)])
right.boxplot(areas, tick_labels=[f"rater {rater}" for rater in range(data.num_raters)])
right.axhline(1, color="black", linewidth=0.5)
right.set_ylabel("cup area / true cup area")

# %%
# Labels without drawing
# ----------------------
# The columns of a large data set cost milliseconds. The default prevalence has a moderate long tail; both eyes of a
# patient share a group, a camera and, more often than not, the grade.

large = SyntheticFundus(size=100_000)
print("grades", large.targets.bincount().tolist())
print("cameras", large.domains.bincount().tolist())
print("lesions of the first eye", dict(zip(large.lesion_names, large.lesion_counts.totals()[0].tolist(), strict=True)))
print("classes above", large.class_names[3], large.hierarchy[large.class_names[3]])
