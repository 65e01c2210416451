"""A bundle on disk that needs no training: the real network, with weights that tell the phantom's parts by HU."""

from pathlib import Path

import torch

from model.bundle import write_bundle
from model.network_input import Preprocessing
from model.unet import UNet3D, UNetConfig
from tests.bands import BANDS_HU, ORGAN_OF_PART

EDGE_HU = 20.0


def write_band_bundle(folder: Path) -> Path:
    """Write the bundle.

    Each end of a band is a window of its own, which the network clamps to -1 below and +1 above;
    lower end minus upper end is then positive within the band alone.
    """
    ends = [end for band in BANDS_HU for end in band]
    config = UNetConfig(
        outputs=len(BANDS_HU),
        hu_windows=tuple((end - EDGE_HU, end + EDGE_HU) for end in ends),
        fold=(1, 1, 1),
        channels=(len(ends),),
        blocks=(0,),
        planar=(True,),
        strides=(),
    )
    network = UNet3D(config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        for channel in range(len(ends)):
            network.stem.weight[channel, channel, 0, 1, 1] = 1
        for organ in range(len(BANDS_HU)):
            network.head.weight[organ, 2 * organ] = 8
            network.head.weight[organ, 2 * organ + 1] = -8
            network.head.bias[organ] = -8
    write_bundle(
        folder,
        network,
        name="bands",
        version="1",
        structure_names=tuple(ORGAN_OF_PART.values()),
        preprocessing=Preprocessing((2.0, 2.0, 2.0), 1.0),
        tile=(32, 48, 64),
        card={},
    )
    return folder
