"""What TRL's asynchronous trainer needs of a GPU and of vLLM, on a CPU: a server, its weights, an attention."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import torch
from transformers import AutoModelForCausalLM


def digits(completions, **_):
    """A reward that the rollout process can import: the share of low digits."""
    texts = [turns[-1]["content"] for turns in completions]
    return [sum(c in "01234" for c in text) / max(len(text), 1) for text in texts]


class Server:
    """Answers `/v1/completions` as vLLM does, from a model that `send_weights` keeps at the policy's weights."""

    def __init__(self, path):
        self.model, self.lock, self.received = (
            AutoModelForCausalLM.from_pretrained(path).eval(),
            threading.Lock(),
            0,
        )

    def complete(self, request):
        prompt = torch.tensor([request["prompt"]])
        with self.lock, torch.no_grad():
            found = self.model.generate(
                prompt,
                max_new_tokens=request["max_tokens"],
                temperature=request["temperature"],
                do_sample=True,
                top_k=0,
                output_logits=True,
                return_dict_in_generate=True,
            )
        ids = found.sequences[0, prompt.shape[1] :].tolist()
        logits = torch.stack(found.logits, dim=1)[0] / request["temperature"]
        log_probs = logits.log_softmax(dim=-1)[range(len(ids)), ids].tolist()
        return {"choices": [{"token_ids": ids, "logprobs": {"token_logprobs": log_probs}}]}

    def init_weight_transfer(self):
        pass

    def pause(self):
        self.lock.acquire()

    def send_weights(self, named):
        weights = dict(named)
        self.model.load_state_dict(weights)
        self.received += 1

    def resume(self):
        self.lock.release()

    def destroy(self):
        pass


@contextmanager
def serve(path):
    """A server on a port of its own, and its address."""
    server = Server(path)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.answer({"data": [{"max_model_len": 1024}]})

        def do_POST(self):
            self.answer(server.complete(json.loads(self.rfile.read(int(self.headers["Content-Length"])))))

        def answer(self, found):
            body = json.dumps(found).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    try:
        yield server, f"http://127.0.0.1:{http.server_port}"
    finally:
        http.shutdown()


def attend_in_segments(query, key, value, starts_q, starts_k, *_, softmax_scale, **__):
    """FlashAttention's function over the segments of a packed row, in plain torch."""
    parts = []
    for q0, q1, k0, k1 in zip(starts_q[:-1], starts_q[1:], starts_k[:-1], starts_k[1:], strict=True):
        q, k, v = (x.transpose(0, 1) for x in (query[q0:q1], key[k0:k1], value[k0:k1]))
        causal = torch.ones(q1 - q0, k1 - k0, dtype=torch.bool).tril(int((k1 - k0) - (q1 - q0)))
        found = torch.nn.functional.scaled_dot_product_attention(
            q, k, v, attn_mask=causal, scale=softmax_scale, enable_gqa=True
        )
        parts.append(found.transpose(0, 1))
    return torch.cat(parts)
