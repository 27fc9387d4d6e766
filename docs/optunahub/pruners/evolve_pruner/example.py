"""Tunes a learning rate by trainings of 30 epochs, most of which are stopped early."""

from __future__ import annotations

import math

import optuna
import optunahub

EPOCHS = 30


def objective(trial: optuna.Trial) -> float:
    rate = trial.suggest_float("rate", 1e-5, 1.0, log=True)
    height = 1 - 0.2 * abs(math.log10(rate / 0.003))
    score = 0.0
    for epoch in range(1, EPOCHS + 1):
        score = height * (1 - math.exp(-epoch / 10))
        trial.report(score, epoch)
        if trial.should_prune():
            raise optuna.TrialPruned
    return score


if __name__ == "__main__":
    pruner = optunahub.load_module("pruners/evolve_pruner").EvolvePruner(epochs=EPOCHS)
    study = optuna.create_study(direction="maximize", pruner=pruner, sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(objective, n_trials=60)
    stopped = len(study.get_trials(states=[optuna.trial.TrialState.PRUNED]))
    print(f"{stopped} of 60 trials were stopped; best {study.best_value:.3f} at {study.best_params}")
