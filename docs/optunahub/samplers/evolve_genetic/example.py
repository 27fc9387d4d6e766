"""Tunes a function of four parameters of different kinds, whose values are noisy."""

from __future__ import annotations

import math
import random

import optuna
import optunahub


def objective(trial: optuna.Trial) -> float:
    rate = trial.suggest_float("rate", 1e-5, 1.0, log=True)
    layers = trial.suggest_int("layers", 1, 8)
    dropout = trial.suggest_float("dropout", 0.0, 0.5)
    optimizer = trial.suggest_categorical("optimizer", ["sgd", "adam"])
    error = abs(math.log10(rate / 0.003)) + 0.2 * abs(layers - 5) + dropout + 0.3 * (optimizer == "sgd")
    return error + random.Random(trial.number).gauss(0, 0.02)


if __name__ == "__main__":
    sampler = optunahub.load_module("samplers/evolve_genetic").GeneticSampler(seed=0)
    study = optuna.create_study(sampler=sampler)
    study.optimize(objective, n_trials=60)
    print(study.best_trial.params, study.best_value)
