# %% [markdown]
# # 03 Focal Sampling: solutions
#
# {{COLAB}}
#
# One way to solve each exercise of [03 Focal Sampling](../03_focal_sampling.ipynb). Others are as good, as long as the check
# says "right".

# %%
# {{SETUP}}

# %%
import math

import numpy as np

from medbridge.course import check

# %% [markdown]
# ### Exercise 3.1: the number of windows as a formula
# Along one axis the step $(L - s)/n$ may be at most $s(1 - o)$, so $n \ge (L - s)/(s(1 - o))$. The smallest whole $n$ is the
# ceiling, and $n$ steps make $n + 1$ windows:
#
# $$G = \prod_{L \in \{H, W\}} \left( \left\lceil \frac{L - s}{s\,(1 - o)} \right\rceil + 1 \right), \qquad s = c \min(H, W)$$

# %%
def number_of_windows(height, width, crop, overlap):
    side = crop * min(height, width)
    per_axis = [math.ceil((length - side) / (side * (1 - overlap))) + 1 for length in (height, width)]
    return per_axis[0] * per_axis[1]


check("3.1", number_of_windows)

# %% [markdown]
# ### Exercise 3.2: relative boxes
# One corner and one side for both axes: dividing x by the width and y by the height would stretch a film that is not square.

# %%
def relative_boxes(boxes, height, width):
    side = max(height, width)
    corner = np.array([(width - side) / 2, (height - side) / 2])
    return (boxes - np.tile(corner, 2)) / side


check("3.2", relative_boxes)

# %% [markdown]
# ### Exercise 3.3: how large may the window be?
# $d\,R/(c\,S) \ge p$ gives $c \le d\,R/(p\,S)$.

# %%
def largest_crop(d, p, R, S):
    return min(1.0, d * R / (p * S))


check("3.3", largest_crop)

# %% [markdown]
# What does it cost? Views of a 1024 x 1024 film at overlap 0.25, for a nodule of 20 pixels:

# %%
for R in (128, 224, 448):
    for p in (5, 10):
        crop = largest_crop(20, p, R, 1024)
        print(f"R = {R}, at least {p:2d} pixels wide: crop {crop:.3f}, {1 + number_of_windows(1024, 1024, crop, 0.25):3d} views")
