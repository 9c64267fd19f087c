"""Recipes that the tests start from."""

from __future__ import annotations

SMALL = """\
nacre: 1
name: small
data:
  kind: builtin
  name: iris
  size: 150
model: {kind: mlp, hidden: [8]}
"""

WHOLE = """\
nacre: 1
name: whole
seed: 3
data:
  kind: table
  path: rows.csv
  target: ill
  classes: ["no", "yes"]
  columns:
    age: {low: 0, high: 120}
    sex: {categories: [f, m]}
  unit: patient
  size: 300
  holdout: {share: 0.2}
  public: {path: other.csv}
  scaling: {kind: public, clamp: 4}
model: {kind: mlp, hidden: [16]}
fine_tuning:
  kind: lora
  rank: 2
  pretrain: {steps: 20, optimizer: {kind: adam, lr: 1e-2}}
gradient_clipping: {kind: flat, norm: 0.5}
federated_learning:
  parties: {kind: uniform, names: [east, north]}
  rounds: 4
  stop: {kind: flat, patience: 2}
differential_privacy: {unit: group, epsilon: 4, delta: 1e-4, rows_per_unit: 3}
adversarial_training:
  kind: trades
  beta: 4
  attack:
    kind: pgd
    ball: {kind: l2, radius: 0.3, frozen: [sex]}
training:
  batch: 32
  sampling: {kind: poisson}
  optimizer: {kind: sgd, lr: 0.5}
execution: {microbatch: 8}
ledger:
  path: "{run}/privacy.db"
  dataset: whole
  grant: {epsilon: 4, delta: 1e-4, rule: pld}
audit: [membership, {kind: evasion, effort: full}]
compare: [public_base]
"""
