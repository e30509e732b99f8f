"""Audio to images and features: decoding, the spectrogram's definition, one file per engine."""

from preprocess.openmp import let_idle_threads_sleep

let_idle_threads_sleep()  # before any module here imports torch
