"""What vLLM's workers can do besides vLLM's own (`worker_extension_cls`): replace their weights, score, draft texts."""

from __future__ import annotations

from tasks.serving.drafts import Drafts
from tasks.serving.scoring import Scoring
from tasks.serving.weights import Weights


class Extension(Weights, Scoring, Drafts):
    """vLLM mixes it into its worker class."""
