"""Train a small RepVGG on part of the CIFAR-10 sample and export it with all its branches.

    python -m benchmarks.images.train_repvgg --data ../shared/data --out build/repvgg.onnx

RepVGG (Ding et al. 2021, arXiv:2101.03697): each block adds a 3x3 convolution, a 1x1 convolution and, where its width
stays, the input itself, each behind a batch normalisation. Needs torch; a few minutes on one core. The same seed and
versions give the same weights.
"""

import argparse
import os
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional

from benchmarks.images import cifar
from tightrope.workshop.sources import torch_module

WIDTHS, DEPTHS = (24, 48, 96), (2, 2, 3)
EPOCHS, BATCH, RATE, DECAY = 24, 64, 0.08, 5e-4
MEAN, STD = (0.491, 0.482, 0.447), (0.247, 0.243, 0.262)
PREPROCESSING = {
    "do_resize": False,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": MEAN,
    "image_std": STD,
    "resample": 2,
}


class Block(nn.Module):
    """Three branches and a ReLU."""

    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.wide = nn.Sequential(nn.Conv2d(inner, outer, 3, stride, 1, bias=False), nn.BatchNorm2d(outer))
        self.point = nn.Sequential(nn.Conv2d(inner, outer, 1, stride, 0, bias=False), nn.BatchNorm2d(outer))
        self.same = nn.BatchNorm2d(outer) if inner == outer and stride == 1 else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        total = self.wide(x) + self.point(x)
        return functional.relu(total if self.same is None else total + self.same(x))


def network() -> nn.Module:
    """The network: three stages of 32, 16 and 8 pixels."""
    blocks: list[nn.Module] = [Block(3, WIDTHS[0], 1)]
    before = WIDTHS[0]
    for stage, (width, depth) in enumerate(zip(WIDTHS, DEPTHS, strict=True)):
        for number in range(depth):
            blocks.append(Block(before, width, 2 if stage and not number else 1))
            before = width
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, len(cifar.CLASSES)))


def images(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Normalised images [n, 3, 32, 32] and their classes."""
    files = [(path, label) for label, name in enumerate(cifar.CLASSES) for path in sorted((folder / name).iterdir())]
    pixels = np.stack([np.asarray(Image.open(path).convert("RGB"), np.float32) for path, _ in files]) / 255
    normal = (pixels - np.float32(MEAN)) / np.float32(STD)
    return torch.from_numpy(normal.transpose(0, 3, 1, 2).copy()), torch.tensor([label for _, label in files])


def varied(batch: torch.Tensor, random: torch.Generator) -> torch.Tensor:
    """Mirrored or not, and moved by up to four pixels."""
    count = len(batch)
    flip = torch.rand(count, generator=random) < 0.5
    batch = torch.where(flip[:, None, None, None], batch.flip(3), batch)
    padded = functional.pad(batch, (4, 4, 4, 4))
    rows, columns = (torch.randint(0, 9, (count,), generator=random).tolist() for _ in range(2))
    return torch.stack(
        [padded[i, :, r : r + 32, c : c + 32] for i, (r, c) in enumerate(zip(rows, columns, strict=True))]
    )


def accuracy(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
    """The share of images whose highest logit is the right one."""
    model.eval()
    with torch.no_grad():
        found = torch.cat([model(part).argmax(1) for part in x.split(250)])
    return float((found == y).float().mean())


def train(folder: Path, epochs: int) -> tuple[nn.Module, float]:
    """The trained network, and its accuracy on the part for choosing."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    random = torch.Generator().manual_seed(0)
    model, (x, y) = network(), images(folder / cifar.TRAIN)
    chosen = images(folder / cifar.CHOOSE)
    optimiser = torch.optim.SGD(model.parameters(), lr=RATE, momentum=0.9, weight_decay=DECAY, nesterov=True)
    steps = epochs * (len(x) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps, pct_start=0.2)
    for epoch in range(epochs):
        model.train()
        started = time.monotonic()
        for places in torch.randperm(len(x), generator=random)[: len(x) // BATCH * BATCH].split(BATCH):
            loss = functional.cross_entropy(model(varied(x[places], random)), y[places], label_smoothing=0.1)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
        print(f"epoch {epoch + 1}: loss {float(loss):.3f}, {time.monotonic() - started:.0f} s", flush=True)
    return model, accuracy(model, *chosen)


def main() -> None:
    """Unpack, train, export."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("build/images/repvgg/model.onnx"))
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    said = parser.parse_args()
    folder = cifar.unpack(said.data, Path("build/images/cifar"))
    model, chosen = train(folder, said.epochs)
    torch_module.write(model, said.out, (32, 32), PREPROCESSING, cifar.CLASSES)
    print(f"{said.out}: top-1 {chosen:.4f} on the part for choosing")


if __name__ == "__main__":
    main()
