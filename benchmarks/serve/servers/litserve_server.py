"""LitServe with its dynamic batching: `python -m benchmarks.serve.servers.litserve_server MODEL PORT`."""

import sys

import litserve
from sentence_transformers import SentenceTransformer


class Embeddings(litserve.LitAPI):
    """One model, batches of up to 32 requests, as its guide for embeddings has it."""

    def setup(self, device: str) -> None:
        """Open the model in the worker."""
        self.model = SentenceTransformer(sys.argv[1], device="cpu")

    def decode_request(self, request: dict) -> str:
        """The text of a request."""
        return request["inputs"][0]

    def predict(self, texts: list[str]) -> list[list[float]]:
        """Vectors of a batch."""
        return self.model.encode(texts, normalize_embeddings=True).tolist()

    def encode_response(self, vector: list[float]) -> list[list[float]]:
        """The answer of one request."""
        return [vector]


if __name__ == "__main__":
    api = Embeddings(max_batch_size=32, batch_timeout=0.002, api_path="/embed")
    litserve.LitServer(api, accelerator="cpu").run(
        host="127.0.0.1", port=int(sys.argv[2]), generate_client_file=False, log_level="warning"
    )
