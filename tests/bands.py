"""A network that needs no training: it finds the phantom's parts by their HU."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.bundle import Bundle
from model.network_input import Preprocessing

ORGAN_OF_PART: Mapping[str, str] = {
    "left_ball": "Parotid_L",
    "right_cube": "Parotid_R",
    "anterior_cone": "Bone_Mandible",
    "superior_bar": "Brain",
}
BANDS_HU = ((170.0, 480.0), (480.0, 900.0), (-700.0, -150.0), (900.0, 2000.0))


class BandNetwork(nn.Module):
    """(B, 2, D, H, W), HU first, to (B, 4, D, H, W) logits: positive within each organ's band of HU."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("bands", torch.tensor(BANDS_HU))

    def forward(self, image: Tensor) -> Tensor:
        """Logits that fall to the ends of each band; skins of a voxel or two, as at edges, are opened away."""
        low, high = (self.bands[:, side].view(1, -1, 1, 1, 1) for side in (0, 1))
        hu = image[:, :1]
        logits = torch.minimum(hu - low, high - hu) / 50
        eroded = -F.max_pool3d(-logits, 3, 1, 1)
        return torch.minimum(logits, F.max_pool3d(eroded, 3, 1, 1))


def band_bundle(spacing_mm: tuple[float, float, float] = (2.0, 2.0, 2.0)) -> Bundle:
    """A bundle around the `BandNetwork`, with tiles smaller than the phantom so that they must be joined."""
    return Bundle(
        name="bands",
        version="1",
        digest="0" * 64,
        structure_names=tuple(ORGAN_OF_PART.values()),
        network=BandNetwork(),
        preprocessing=Preprocessing(spacing_mm, resolution_mm=1.0),
        tile=(32, 48, 64),
    )
