//! What policy promises, for any host and any guests: bounds, the budget, fairness, and rest.

mod bounds;
mod floors;
mod guests;
mod rest;
mod shares;
mod steps;
