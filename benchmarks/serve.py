"""The server under load, beside ``transformers serve`` and llama.cpp's server on the same weights.

    uv run python benchmarks/serve.py writing [weft transformers llama] [--clients 1 8 32]
    uv run python benchmarks/serve.py predict RUN TABLE          # rows a second of /predict
    uv run python benchmarks/serve.py memory RUN                 # resident memory over 10,000 requests

``writing`` makes a Llama of 43 million random parameters (float32) with a tokenizer learnt on this repository's own
documents, and asks each server as many clients at once for answers of 64 tokens after prompts of about 120, streamed.
llama.cpp's server comes from the packages ``xllamacpp`` and ``gguf``: uv run --with xllamacpp --with gguf python ...
One thread each; tokens a second by the clock, and by the seconds of CPU that the server used, which other work on the
machine does not change. Prints one JSON line a measurement.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import httpx
import numpy as np
import pyarrow as pa
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from weft.data.table import Table
from weft.models.language import LanguageConfig, LanguageModel
from weft.models.stored import save_language_model
from weft.models.transformer import TransformerConfig

ROOT = Path(__file__).parents[1]
WIDTH, LAYERS, HEADS, GROUPS, FFN, VOCABULARY, CONTEXT = 512, 12, 8, 4, 1536, 8_192, 1_024
TOKENS = 64
TEMPLATE = "{% for m in messages %}{{ m['content'] }}{{ eos_token }}{% endfor %}"


def make_model(folder: Path) -> Path:
    texts = [p.read_text(encoding="utf-8") for p in sorted([*ROOT.glob("*.md"), *ROOT.glob("**/src/**/*.py")])]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    torch.manual_seed(0)
    backbone = TransformerConfig(
        WIDTH, LAYERS, HEADS, GROUPS, ffn_width=FFN, attention="writing", max_positions=CONTEXT
    )
    vocabulary = tokenizer.get_vocab_size()
    model = LanguageModel(LanguageConfig(backbone, vocabulary, tied=False, begin=0, end=(1,)))
    torch.nn.init.normal_(model.output.weight, std=0.3)
    with torch.no_grad():
        model.output.weight[1] = 0  # answers do not end early
    run = folder / "model"
    run.mkdir()
    save_language_model(model, run, tokenizer, {"chat_template": TEMPLATE})
    return run


def make_gguf(run: Path) -> Path:
    """The same weights for llama.cpp, whose rotation wants the rows of queries and keys in another order."""
    import gguf
    from safetensors.torch import load_file

    tokenizer = json.loads((run / "tokenizer.json").read_text())["model"]
    out = run.parent / "model.gguf"
    writer = gguf.GGUFWriter(str(out), "llama")
    settings: tuple[tuple[Callable[..., None], Any], ...] = (
        (writer.add_context_length, CONTEXT), (writer.add_embedding_length, WIDTH), (writer.add_block_count, LAYERS),
        (writer.add_feed_forward_length, FFN), (writer.add_head_count, HEADS), (writer.add_head_count_kv, GROUPS),
        (writer.add_rope_dimension_count, WIDTH // HEADS), (writer.add_layer_norm_rms_eps, 1e-6),
        (writer.add_rope_freq_base, 10_000.0), (writer.add_vocab_size, len(tokenizer["vocab"])),
        (writer.add_file_type, 0), (writer.add_tokenizer_model, "gpt2"), (writer.add_tokenizer_pre, "gpt-2"),
        (writer.add_token_list, sorted(tokenizer["vocab"], key=tokenizer["vocab"].get)),
        (writer.add_token_types, [3, 3, *[1] * (len(tokenizer["vocab"]) - 2)]),
        (writer.add_token_merges, [m if isinstance(m, str) else " ".join(m) for m in tokenizer["merges"]]),
        (writer.add_bos_token_id, 0), (writer.add_eos_token_id, 1), (writer.add_add_bos_token, False),
        (writer.add_chat_template, TEMPLATE),
    )  # fmt: skip
    for add, value in settings:
        add(value)
    names = {
        "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output", "model.layers.": "blk.",
        "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
    }  # fmt: skip
    for name, tensor in load_file(run / "model.safetensors").items():
        heads = HEADS if "q_proj" in name else GROUPS if "k_proj" in name else None
        if heads is not None:
            shape = tensor.shape
            tensor = tensor.reshape(heads, 2, shape[0] // heads // 2, shape[1]).swapaxes(1, 2).reshape(shape)
        for theirs, ours in sorted(names.items(), key=lambda pair: -len(pair[0])):
            name = name.replace(theirs, ours)
        writer.add_tensor(name, np.ascontiguousarray(tensor.numpy()))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return out


LLAMA = """
import sys, time, xllamacpp as x
p = x.CommonParams()
p.model.path, p.n_ctx, p.n_parallel, p.port = sys.argv[1], 32 * 512, 32, int(sys.argv[2])
p.hostnames = ["127.0.0.1"]
p.cpuparams.n_threads = p.cpuparams_batch.n_threads = 1
p.cont_batching = True
server = x.Server(p)
time.sleep(100000)
"""


@contextmanager
def serving(command: list[str], address: str) -> Iterator[int]:
    """A server in a process of its own; its process id."""
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stdout=said, stderr=said, start_new_session=True)
        try:
            for _ in range(600):
                if process.poll() is not None:
                    said.seek(0)
                    raise SystemExit(said.read().decode()[-3000:])
                try:
                    if httpx.get(address, timeout=5).status_code < 500:
                        break
                except httpx.HTTPError:
                    pass
                time.sleep(0.2)
            yield process.pid
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def one(client: httpx.AsyncClient, model: str, number: int) -> tuple[float, float, int]:
    """Seconds to the first token, in all, and the tokens of one answer."""
    words = " ".join(f"{(number * 7919 + i * 104729) % 1000}" for i in range(40))
    body = {
        "model": model, "messages": [{"role": "user", "content": words}], "max_tokens": TOKENS, "temperature": 1.0,
        "stream": True, "seed": number,
    }  # fmt: skip
    started, first, tokens = time.monotonic(), 0.0, 0
    async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
        if answer.status_code != 200:
            raise SystemExit((await answer.aread()).decode())
        async for line in answer.aiter_lines():
            if line.startswith("data: {") and (choices := json.loads(line[6:]).get("choices")):
                told = choices[0]["delta"].get("content")
                first = first or (time.monotonic() - started if told else 0.0)
                tokens += bool(told)
    return first, time.monotonic() - started, tokens


async def load(address: str, model: str, clients: int, each: int) -> list[tuple[float, float, int]]:
    limits = httpx.Limits(max_connections=clients)
    async with httpx.AsyncClient(base_url=address, timeout=600, limits=limits) as client:

        async def in_turn(number: int) -> list[tuple[float, float, int]]:
            return [await one(client, model, number * each + i) for i in range(each)]

        return [a for answers in await asyncio.gather(*map(in_turn, range(clients))) for a in answers]


def writing(servers: list[str], clients: list[int]) -> None:
    with tempfile.TemporaryDirectory() as work:
        run = make_model(Path(work))
        for number, server in enumerate(servers):
            port = 8700 + number
            address = f"http://127.0.0.1:{port}"
            command, model, ready = {
                "weft": ([str(Path(sys.executable).with_name("weft")), "serve", str(run), "--port", str(port)],
                         "model", "/healthz"),
                "transformers": ([str(Path(sys.executable).with_name("transformers")), "serve", "--port", str(port),
                                  "--device", "cpu", "--dtype", "float32", str(run)], str(run), "/v1/models"),
                "llama": ([sys.executable, "-c", LLAMA, str(run.parent / "model.gguf"), str(port)], "model", "/health"),
            }[server]  # fmt: skip
            if server == "llama":
                make_gguf(run)
            with serving(command, address + ready) as pid:
                asyncio.run(load(address, model, 1, 1))
                for count in clients:
                    before, started = cpu_seconds(pid), time.monotonic()
                    found = asyncio.run(load(address, model, count, 4 if count == 1 else 2))
                    seconds, cpu = time.monotonic() - started, cpu_seconds(pid) - before
                    tokens = sum(t for _, _, t in found)
                    firsts = sorted(f for f, _, _ in found)
                    print(json.dumps({
                        "server": server, "clients": count, "requests": len(found), "pieces": tokens,
                        "tokens_a_second": round(tokens / seconds, 1), "tokens_a_cpu_second": round(tokens / cpu, 1),
                        "first_token_median": round(statistics.median(firsts), 3),
                        "first_token_p95": round(firsts[int(0.95 * (len(firsts) - 1))], 3),
                        "seconds_p95": round(sorted(s for _, s, _ in found)[int(0.95 * (len(found) - 1))], 2),
                        "resident_mb": resident(pid) >> 20, "load": os.getloadavg()[0],
                    }), flush=True)  # fmt: skip


async def post_all(address: str, path: str, bodies: list[Any], clients: int) -> list[float]:
    times = []
    async with httpx.AsyncClient(base_url=address, timeout=600, limits=httpx.Limits(max_connections=clients)) as client:
        queue = iter(bodies)

        async def worker() -> None:
            for body in queue:
                started = time.monotonic()
                answer = await client.post(path, json=body)
                assert answer.status_code == 200, answer.text
                times.append(time.monotonic() - started)

        await asyncio.gather(*(worker() for _ in range(clients)))
    return times


def rows_of(table: str, count: int) -> list[dict[str, Any]]:
    head = Table.open(table).rows(range(count))
    found = pa.Table.from_batches([raw.batch for raw in head.batches()]).to_pylist()
    return [
        {k: None if v is None else v if isinstance(v, (int, float)) else str(v) for k, v in r.items()} for r in found
    ]


def predict(run: str, table: str) -> None:
    rows, address = rows_of(table, 4_000), "http://127.0.0.1:8710"
    command = [str(Path(sys.executable).with_name("weft")), "serve", run, "--port", "8710"]
    with serving(command, address + "/healthz") as pid:
        asyncio.run(post_all(address, "/predict", [{"rows": rows[:10]}] * 5, 1))
        for each, clients, count in ((1, 1, 300), (1, 32, 2_000), (100, 1, 4_000), (1_000, 4, 4_000)):
            bodies = [{"rows": rows[i : i + each]} for i in range(0, count, each)]
            before, started = cpu_seconds(pid), time.monotonic()
            times = sorted(asyncio.run(post_all(address, "/predict", bodies, clients)))
            seconds, cpu = time.monotonic() - started, cpu_seconds(pid) - before
            print(json.dumps({
                "rows_a_request": each, "clients": clients, "rows_a_second": round(count / seconds),
                "rows_a_cpu_second": round(count / cpu), "median_ms": round(1000 * statistics.median(times), 1),
                "p95_ms": round(1000 * times[int(0.95 * (len(times) - 1))], 1), "load": os.getloadavg()[0],
            }), flush=True)  # fmt: skip


def memory(run: str) -> None:
    address = "http://127.0.0.1:8711"
    command = [str(Path(sys.executable).with_name("weft")), "serve", run, "--port", "8711"]
    with serving(command, address + "/healthz") as pid:
        for done in range(0, 10_001, 1_000):
            bodies = [{"prompt": f"{done + i} and then", "max_tokens": 4, "seed": i} for i in range(1_000)]
            asyncio.run(post_all(address, "/v1/completions", bodies, 16))
            print(json.dumps({"requests": done + 1_000, "resident_mb": round(resident(pid) / 2**20, 1)}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    ways = parser.add_subparsers(dest="way", required=True)
    way = ways.add_parser("writing")
    way.add_argument("servers", nargs="*", default=["weft", "transformers"])
    way.add_argument("--clients", type=int, nargs="*", default=[1, 8, 32])
    way = ways.add_parser("predict")
    way.add_argument("run")
    way.add_argument("table")
    ways.add_parser("memory").add_argument("run")
    given = parser.parse_args()
    if given.way == "writing":
        writing(given.servers, given.clients)
    elif given.way == "predict":
        predict(given.run, given.table)
    else:
        memory(given.run)


if __name__ == "__main__":
    main()
