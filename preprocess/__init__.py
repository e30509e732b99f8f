"""Audio to images and features: decoding, the spectrogram's definition, one file per engine."""
