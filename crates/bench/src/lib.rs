//! Measures Headwater: the pieces with criterion (`benches/`), the whole with the program
//! `headwater-bench`. docs/benchmarks.md says how to run them and what they gave.
