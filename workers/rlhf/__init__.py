"""The formulas of RLHF as pure functions on tensors: torch and the standard library, nothing else.

`PAPERS.md` leads from each equation to its function and its test. Symbols, where papers and code collide:

| our name                           | symbol and place           | note                                                    |
|------------------------------------|----------------------------|---------------------------------------------------------|
| `kl_coef`                          | beta, InstructGPT Eq. 2    | weight of log(pi_RL / pi_SFT) in the reward             |
| `ptx_coef`                         | gamma, InstructGPT Eq. 2   | weight of the pretraining likelihood; NOT the discount  |
| `gamma`                            | gamma, GAE                 | discount; 1.0 here                                      |
| `lam`                              | lambda, GAE                | `lambda` is a keyword                                   |
| `cliprange`, `cliprange_value`     | epsilon, PPO Eq. 7         | not Adam's eps                                          |
| `vf_coef`                          | c1, PPO Eq. 9              |                                                         |
| `logprobs`, `ref_logprobs`, `old_logprobs` | log pi_phi, log pi_SFT, log pi_phi_old | phi = policy parameters in InstructGPT |
| `values`, `returns`, `advantages`  | V, R, A                    | the critic's, not phi's                                 |
| `scores` (B,) / `rewards` (B, T)   | r_theta(x, y) / per token, KL included | theta = reward model parameters             |
| dimensions                         | B batch, K ranked answers, Q query, T response, V vocabulary | masks: True = counts |
"""
