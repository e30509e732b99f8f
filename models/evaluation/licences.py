"""Licences of the pretrained weights that a model contains or depends on."""

from __future__ import annotations

from shardwave.preprocess.weights.catalogue import WEIGHTS

_VGG16 = (
    "the frozen part has the weights VGG16_Weights.DEFAULT of torchvision, trained on ImageNet: see the "
    "terms of torchvision and of ImageNet"
)


def pretrained_licences(backbone: str | None, inputs: str | None) -> list[str]:
    """Return one sentence per set of pretrained weights; none if the model was trained from scratch.

    Args:
        backbone: Name of the frozen image network with pretrained weights, or None.
        inputs: Setting `inputs` of the training, the names of vector fields with commas, or None.
    """
    licences = []
    if backbone == "vgg16":
        licences.append(_VGG16)
    elif backbone in WEIGHTS:
        weights = WEIGHTS[backbone]
        licences.append(f"the frozen part {backbone}: {weights.licence}; {weights.citation}")
    for name in (inputs or "").split(","):
        source = WEIGHTS.get(name.partition("_")[0])
        if source is not None:
            licences.append(f"the embedding {name}: {source.licence}; {source.citation}")
    return licences
