"""Figures of the paper that pages show beside a project's own (Ouyang et al. 2022)."""

from collections.abc import Mapping

from app.models import Category

TABLE_1: Mapping[Category, float] = {
    Category.GENERATION: 0.456,
    Category.OPEN_QA: 0.124,
    Category.BRAINSTORMING: 0.112,
    Category.CHAT: 0.084,
    Category.REWRITE: 0.066,
    Category.SUMMARIZATION: 0.042,
    Category.CLASSIFICATION: 0.035,
    Category.OTHER: 0.035,
    Category.CLOSED_QA: 0.026,
    Category.EXTRACT: 0.019,
}
"""Shares of use cases among the prompts of the reward model's set."""
