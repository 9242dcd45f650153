"""SpAD, spike-aware alignment distillation: five losses from a softmax teacher (BiSpikCLM, arXiv 2605.13859).

    L = l1 EA + l2 SAA + l3 SFA + l4 STA + l5 HTA,  sum l = 1;  l = (0.2, 0.1, 0.1, 0.3, 0.3)

    EA   embeddings         MSE(mean_t e_S(t), e_T)
    SAA  attention maps     g RateMSE(A_S, A_T) + (1 - g) MSE(mean_t A_S, A_T)
    SFA  features           g RateMSE(H_S, H_T) + (1 - g) MSE(LN(P(mean_t H_S)), LN(H_T)), P where widths differ
    STA  soft targets       tau^2 KL(teacher || student), both at temperature tau = 2
    HTA  hard targets       cross-entropy

    RateMSE(x_S, x_T) = MSE(mean_t x_S(t), mean_t LIF_t(x_T held for T steps))      (Eq. 9, 13)

Student tensors carry time first: [T, B, N, ...]; the teacher's have none. Layers are paired uniformly. The paper's own
figures do not tell SAA's scale: a student's map is the binary or integer score before its gather, divided by its row sum
here, so that both maps are distributions over the positions seen.
"""

from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import nn

from .softmax_twin import Binary


@dataclass(frozen=True)
class Weights:
    """l1..l5; 0 switches a loss off (it is then not computed)."""

    ea: float = 0.2
    saa: float = 0.1
    sfa: float = 0.1
    sta: float = 0.3
    hta: float = 0.3

    def __post_init__(self):
        for name in (field.name for field in fields(self)):
            if getattr(self, name) < 0:
                raise ValueError(f"The weight of {name} must not be negative, it is {getattr(self, name)}.")
        if not any(getattr(self, field.name) for field in fields(self)):
            raise ValueError("Every loss is off; give at least one a weight.")


def rates(x: torch.Tensor, steps: int, threshold: float = 1.0, beta: float = 0.5) -> torch.Tensor:
    """Firing rates mean_t LIF_t of inputs held for `steps` steps; [..] -> [..] in 0..1. No gradient: the teacher's side."""
    membrane, total = torch.zeros_like(x), torch.zeros_like(x)
    for _ in range(steps):
        membrane = beta * membrane + x
        spike = (membrane >= threshold).to(x.dtype)
        membrane, total = membrane - spike * threshold, total + spike
    return total / steps


def rate_mse(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """RateMSE of [T, ...] against [...] (Eq. 9)."""
    with torch.no_grad():
        target = rates(teacher, student.shape[0])
    return F.mse_loss(student.mean(0), target)


def embedding_alignment(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """EA: [T, B, N, C] against [B, N, C]."""
    return F.mse_loss(student.mean(0), teacher)


def attention_alignment(student: torch.Tensor, teacher: torch.Tensor, gamma: float = 0.5) -> torch.Tensor:
    """SAA: maps [T, B, H, N, N] of the student (scores or spikes, masked) against probabilities [B, H', N, N].

    Heads are averaged where the two models have different numbers of them.
    """
    student = student / student.sum(-1, keepdim=True).clamp_min(1.0)
    if student.shape[2] != teacher.shape[1]:
        student, teacher = student.mean(2, keepdim=True), teacher.mean(1, keepdim=True)
    return gamma * rate_mse(student, teacher) + (1 - gamma) * F.mse_loss(student.mean(0), teacher)


def feature_alignment(student: torch.Tensor, teacher: torch.Tensor, projector: nn.Module, gamma: float = 0.5) -> torch.Tensor:
    """SFA: features [T, B, N, C] against [B, N, C']; `projector` maps C to C' (Identity where they are equal)."""
    width = teacher.shape[-1:]
    held = F.layer_norm(teacher, width)
    projected = projector(student)
    return gamma * rate_mse(projected, held) + (1 - gamma) * F.mse_loss(F.layer_norm(projected.mean(0), width), held)


def soft_targets(student: torch.Tensor, teacher: torch.Tensor, tau: float = 2.0) -> torch.Tensor:
    """STA: tau^2 KL(softmax(z_T / tau) || softmax(z_S / tau)), mean over tokens; logits [B, N, V]."""
    return tau**2 * F.kl_div(F.log_softmax(student / tau, -1).flatten(0, 1), F.log_softmax(teacher / tau, -1).flatten(0, 1),
                             reduction="batchmean", log_target=True)


def pair_layers(student: int, teacher: int) -> list[int]:
    """Teacher's layer for each of the student's: uniform, the last with the last."""
    return [(index + 1) * teacher // student - 1 for index in range(student)]


class SpAD(nn.Module):
    """The five losses together. Student and teacher fill a dict of intermediates:

    `embed` [T, B, N, C], `layerI.scores` [T, B, H, N, N], `layerI.features` [T, B, N, C] of the student;
    `embed` [B, N, C], `layerI.attention` [B, H, N, N], `layerI.features` [B, N, C] of the teacher.

    Parameters
    ----------
    layers, teacher_layers, width, teacher_width : int
    weights : Weights
    gamma, tau : float
        g and tau above.
    """

    def __init__(self, *, layers: int, teacher_layers: int, width: int, teacher_width: int, weights: Weights = Weights(),
                 gamma: float = 0.5, tau: float = 2.0):
        super().__init__()
        self.weights, self.gamma, self.tau = weights, gamma, tau
        self.pairs = pair_layers(layers, teacher_layers)
        same = width == teacher_width
        self.project_embedding = nn.Identity() if same else nn.Linear(width, teacher_width, bias=False)
        self.project = nn.ModuleList(nn.Identity() if same else nn.Linear(width, teacher_width) for _ in range(layers))

    def losses(self, logits: torch.Tensor, targets: torch.Tensor, student: dict, guide: torch.Tensor, teacher: dict) -> dict:
        """Every loss that is on, unweighted, by name: logits, guide [B, N, V], targets int64 [B, N] (-100: none)."""
        on, found = self.weights, {}
        if on.ea:
            found["ea"] = embedding_alignment(self.project_embedding(student["embed"]), teacher["embed"])
        if on.saa:
            found["saa"] = self._mean(lambda i, j: attention_alignment(
                student[f"layer{i}.scores"], teacher[f"layer{j}.attention"], self.gamma))
        if on.sfa:
            found["sfa"] = self._mean(lambda i, j: feature_alignment(
                student[f"layer{i}.features"], teacher[f"layer{j}.features"], self.project[i], self.gamma))
        if on.sta:
            found["sta"] = soft_targets(logits, guide, self.tau)
        if on.hta:
            found["hta"] = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
        return found

    def _mean(self, loss):
        return torch.stack([loss(i, j) for i, j in enumerate(self.pairs)]).mean()

    def total(self, losses: dict) -> torch.Tensor:
        """Weighted sum."""
        return sum(getattr(self.weights, name) * value for name, value in losses.items())


def gradient_norms(spad: SpAD, losses: dict, parameters: list[nn.Parameter]) -> dict[str, float]:
    """Norm over all parameters of each weighted loss's gradient, by name (costs a backward pass per loss)."""
    norms = {}
    for name, value in losses.items():
        weighted = getattr(spad.weights, name) * value
        gradients = torch.autograd.grad(weighted, parameters, retain_graph=True, allow_unused=True)
        norms[name] = float(torch.sqrt(sum(g.square().sum() for g in gradients if g is not None)))
    return norms


class TwinTeacher:
    """A trained `SoftmaxTwin`, frozen: tokens int64 [B, N] -> (logits [B, N, V], intermediates)."""

    def __init__(self, twin: nn.Module):
        self.twin = twin.eval().requires_grad_(False)
        self.layers, self.width = len(twin.blocks), twin.embed.embedding_dim

    @torch.no_grad()
    def __call__(self, tokens: torch.Tensor) -> tuple[torch.Tensor, dict]:
        twin, kept = self.twin, {}
        x = twin.embed(tokens) + twin.position.weight[: tokens.shape[1]]  # [B, N, C]
        kept["embed"] = x
        for index, block in enumerate(twin.blocks):
            q, k, v = (part.unflatten(-1, (block.heads, -1)).transpose(1, 2)  # [B, H, N, C / H]
                       for part in block.qkv(block.norm_attention(x)).chunk(3, -1))
            if block.binary:
                q, k = Binary.apply(q), Binary.apply(k)
            score = q @ k.transpose(-1, -2) * (0.5 if block.binary else q.shape[-1] ** -0.5)  # [B, H, N, N]
            if getattr(block, "causal", True):
                seen = torch.ones_like(score[0, 0], dtype=torch.bool).tril()
                score = score.masked_fill(~seen, -torch.inf)
            attention = score.softmax(-1)
            x = x + block.out((attention @ v).transpose(1, 2).flatten(-2))
            x = x + block.down(F.gelu(block.up(block.norm_mlp(x))))
            kept[f"layer{index}.attention"], kept[f"layer{index}.features"] = attention, x
        return twin.head(twin.norm(x)), kept
