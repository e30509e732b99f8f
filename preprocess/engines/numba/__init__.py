"""Compute images and features on the CPU, with functions compiled by Numba."""
