"""How a process that runs models is set up: its device, and who may write to its output."""

import os
import sys
from typing import NoReturn


def pick_device(name: str) -> str:
    """The torch device of a --device option."""
    import torch

    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name


def quiet() -> None:
    """No progress bars and no advice from transformers: standard output is ours, standard error is for people."""
    # Threads that spin at barriers halve the speed of a shared machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # environment: OpenMP reads it
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # environment: tokenizers reads it
    # Importing transformers makes this folder, else in the temporary folder of all; no system's Python gets one.
    if sys.prefix != sys.base_prefix and os.access(sys.prefix, os.W_OK):
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", f"{sys.prefix}/cache/torch")  # environment: torch reads it
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def end_rank(code: int) -> NoReturn:
    """End a process of several whose work is done, without taking torch down first.

    A thread of torch's that still runs then aborts the process now and then ("terminate called without an active exception"), and
    the launcher would call the whole run failed.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
