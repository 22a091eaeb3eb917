#!/usr/bin/env python3
"""Accuracy items per second: tritmark against lm-evaluation-harness's `hf` backend.

Both ask the same items of the same weights on the same machine with the same number of threads, in
turns, each in a process of its own. The reference's time is that of its requests alone, without
starting Python and loading the model; tritmark's is that of the whole command, from its start to the
written report. The reference may choose its batch size among those given: its best counts.

    pip install torch transformers lm-eval==0.4.9.2
    python cli/benches/lm_eval_hf.py --tritmark target/release/tritmark --data DATA \\
        --hf MODEL_FOLDER [--model FILE.gguf] --task arc_challenge --limit 200

DATA holds <task>/<split>.jsonl.gz, as for a plan. Where `--hf` is left out, only tritmark is timed.
Prints one line per process and, last, the medians and the ratio of them.
"""

import argparse
import gzip
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

TASKS = {
    "arc_challenge": {
        "splits": {"train": "train", "test": "test"},
        "yaml": {
            "output_type": "multiple_choice",
            "training_split": "train",
            "test_split": "test",
            "doc_to_text": "Question: {{question}}\nAnswer:",
            "doc_to_target": "{{choices.label.index(answerKey)}}",
            "doc_to_choice": "{{choices.text}}",
            "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
        },
    },
    "gsm8k": {
        "splits": {"train": "train", "test": "test"},
        "yaml": {
            "output_type": "generate_until",
            "training_split": "train",
            "fewshot_split": "train",
            "test_split": "test",
            "doc_to_text": "Question: {{question}}\nAnswer:",
            "doc_to_target": "{{answer}}",
            "generation_kwargs": {"until": ["Question:", "</s>", "<|im_end|>"], "do_sample": False},
            "metric_list": [{"metric": "exact_match"}],
        },
    },
}


def reference(args):
    """Runs the reference in this process and prints what it took as one line of JSON."""
    import torch
    from lm_eval.evaluator import evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        files = {}
        for split, name in TASKS[args.task]["splits"].items():
            files[split] = str(pathlib.Path(folder) / f"{split}.jsonl")
            with gzip.open(pathlib.Path(args.data) / args.task / f"{name}.jsonl.gz") as source:
                pathlib.Path(files[split]).write_bytes(source.read())
        config = {
            "task": f"timed_{args.task}",
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": files, "cache_dir": folder},
            "num_fewshot": args.shots,
            **TASKS[args.task]["yaml"],
        }
        # YAML reads JSON.
        (pathlib.Path(folder) / "task.yaml").write_text(json.dumps(config))
        model = HFLM(
            pretrained=args.hf,
            device="cpu",
            dtype=args.dtype,
            batch_size=args.batch,
            add_bos_token=True,
        )
        spent = {"seconds": 0.0, "tokens": 0}

        def timed(method):
            def call(requests, **kwargs):
                begun = time.perf_counter()
                answers = method(requests, **kwargs)
                spent["seconds"] += time.perf_counter() - begun
                return answers

            return call

        generate = model._model_generate

        def counted(context, max_length, stop, **kwargs):
            tokens = generate(context, max_length, stop, **kwargs)
            new = tokens[:, context.shape[1] :]
            pad = model.tokenizer.pad_token_id
            spent["tokens"] += int((new != pad).sum()) if pad is not None else new.numel()
            return tokens

        model._model_generate = counted
        model.loglikelihood = timed(model.loglikelihood)
        model.generate_until = timed(model.generate_until)
        manager = TaskManager(include_path=folder, include_defaults=False)
        tasks = manager.load_task_or_group(config["task"])
        evaluate(model, tasks, limit=args.limit, bootstrap_iters=0)
        print(json.dumps(spent))


def tritmark(args):
    """Runs tritmark once; returns seconds and generated tokens."""
    with tempfile.TemporaryDirectory() as folder:
        plan = pathlib.Path(folder) / "plan.toml"
        plan.write_text(
            f"""name = "timed"
[defaults]
threads = [{args.threads}]
[[models]]
id = "model"
path = "{pathlib.Path(args.model or args.hf).resolve()}"
[suites.accuracy]
tasks = ["{args.task}"]
data = "{pathlib.Path(args.data).resolve()}"
num_fewshot = {args.shots}
limit = {args.limit}
add_bos = true
"""
        )
        out = pathlib.Path(folder) / "out"
        begun = time.perf_counter()
        done = subprocess.run(
            [args.tritmark, "run", plan, "--fresh", "--out", out],
            capture_output=True,
            text=True,
            check=False,
        )
        seconds = time.perf_counter() - begun
        if done.returncode != 0:
            sys.exit(f"tritmark failed ({done.returncode}):\n{done.stderr}")
        tokens = 0
        if args.task == "gsm8k":
            from pyarrow import parquet

            (items,) = out.glob("**/items.parquet")
            tokens = sum(parquet.read_table(items, columns=["n_tokens"])["n_tokens"].to_pylist())
        return {"seconds": seconds, "tokens": tokens}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tritmark")
    parser.add_argument("--hf", help="folder of the model for the reference")
    parser.add_argument("--model", help="file of the same weights for tritmark [default: --hf]")
    parser.add_argument("--data", required=True)
    parser.add_argument("--task", choices=TASKS, required=True)
    parser.add_argument("--shots", type=int, default=0)
    parser.add_argument("--limit", type=int, default=100)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--batches", default="1,16,64", help="batch sizes the reference may choose from")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.batch:
        return reference(args)
    if not args.tritmark or not (args.hf or args.model):
        parser.error("--tritmark and a model are needed")

    times = {}
    for number in range(args.rounds):
        ways = [("tritmark", None)]
        if args.hf:
            ways += [("lm-eval", int(batch)) for batch in args.batches.split(",")]
        # Whatever comes first warms the machine for the rest: turn about.
        for name, batch in ways if number % 2 == 0 else reversed(ways):
            if batch is None:
                spent = tritmark(args)
            else:
                done = subprocess.run(
                    [sys.executable, __file__, *sys.argv[1:], "--batch", str(batch)],
                    capture_output=True,
                    text=True,
                    env={**os.environ, "OMP_NUM_THREADS": str(args.threads), "HF_HUB_OFFLINE": "1"},
                    check=False,
                )
                if done.returncode != 0:
                    sys.exit(f"the reference failed:\n{done.stderr}")
                spent = json.loads(done.stdout.strip().splitlines()[-1])
            way = name if batch is None else f"{name}, batch {batch}"
            times.setdefault(way, []).append(spent["seconds"])
            line = f"{way}: {spent['seconds']:.2f} s, {args.limit / spent['seconds']:.2f} items/s"
            if spent["tokens"]:
                line += f", {spent['tokens'] / spent['seconds']:.1f} generated tok/s"
            print(line, flush=True)

    medians = {way: statistics.median(seconds) for way, seconds in times.items()}
    ours = medians.pop("tritmark")
    print(f"tritmark: {args.limit / ours:.2f} items/s (median of {args.rounds})")
    if medians:
        best = min(medians, key=medians.get)
        print(f"{best}: {args.limit / medians[best]:.2f} items/s (median of {args.rounds})")
        print(f"ratio: {medians[best] / ours:.1f}")


if __name__ == "__main__":
    main()
