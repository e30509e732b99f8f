"""Write golden.npz with the original packages.

They are aisfx 0.1.2, musicnn 0.1.0, essentia, librosa, TensorFlow 2.15 and PyTorch:

    pip install --no-deps aisfx==0.1.2 musicnn==0.1.0
    pip install torch tqdm essentia librosa soundfile 'tensorflow-cpu<2.16'
    python tests/preprocess/embeddings/make_golden.py

The wheels of aisfx and musicnn contain the weights.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import aisfx.inference
import librosa
import musicnn
import numpy as np
import soundfile
import tensorflow as tf
import torch
from aisfx.models.cnn2d import CrossNet, EmbeddingNet
from aisfx.preprocessing import blocking, spectrogram_normalize
from aisfx.spectrogram.spectrogram_essentia import compute_spectrogram
from golden_inputs import drawn, signal
from musicnn.models import define_model

HERE = Path(__file__).parent
golden = {}

with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "signal.wav")
    soundfile.write(path, signal(44_100), 44_100, subtype="FLOAT")
    spectrogram = compute_spectrogram(
        path, sr=44100.0, block_size=2048, hop_size=1024, n_mels=96, f_min=0.0, f_max=22050.0
    )
golden["aisfx_spectrogram"] = spectrogram_normalize(spectrogram).astype(np.float32)
blocks = torch.Tensor(blocking(golden["aisfx_spectrogram"], 100, 50, True))
weights, data_sets = torch.load(
    aisfx.inference.get_path_modelWeights(), map_location="cpu", weights_only=False
)
network = CrossNet(EmbeddingNet("max", 3, 1, 64), data_sets, "cpu")
network.load_state_dict(weights)
network.eval()
with torch.no_grad():
    golden["aisfx"] = network.get_embedding(blocks).numpy()
    inner = network.embedding_net
    shapes = {
        key: tuple(value.shape) for key, value in inner.state_dict().items() if "num_batches" not in key
    }
    inner.load_state_dict(
        {key: torch.from_numpy(value) for key, value in drawn(shapes).items()}, strict=False
    )
    golden["aisfx_drawn"] = inner(blocks).numpy()

# in float32: the package rounds the power to float16, which overflows for loud audio
mel = librosa.feature.melspectrogram(y=signal(16_000), sr=16_000, hop_length=256, n_fft=512, n_mels=96).T
golden["musicnn_spectrogram"] = np.log10(10_000 * mel + 1)
windows = np.stack(
    [golden["musicnn_spectrogram"][start : start + 187] for start in range(0, len(mel) - 186, 93)]
)
tf.compat.v1.disable_eager_execution()
for name, model in (("musicnn", "MSD_musicnn"), ("musicnn_mtt", "MTT_musicnn")):
    tf.compat.v1.reset_default_graph()
    with tf.compat.v1.Session() as session:
        inputs, training = (
            tf.compat.v1.placeholder(tf.float32, [None, 187, 96]),
            tf.compat.v1.placeholder(tf.bool),
        )
        penultimate = define_model(inputs, training, model, 50)[8]
        tf.compat.v1.train.Saver().restore(
            session, os.path.join(os.path.dirname(musicnn.__file__), model, "")
        )
        golden[name] = session.run(penultimate, {inputs: windows, training: False})
        if name == "musicnn":
            variables = {variable.op.name: variable for variable in tf.compat.v1.global_variables()}
            shapes = {key: tuple(variable.shape.as_list()) for key, variable in variables.items()}
            for key, value in drawn(shapes).items():
                variables[key].load(value, session)
            golden["musicnn_drawn"] = session.run(penultimate, {inputs: windows, training: False})

for name in ("aisfx_spectrogram", "musicnn_spectrogram"):  # every tenth frame is enough
    golden[name] = golden[name][::10]
np.savez_compressed(HERE / "golden.npz", **{key: value.astype(np.float32) for key, value in golden.items()})
