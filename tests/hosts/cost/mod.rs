//! Our costs, as ratios of one run: `make bench` runs these one after the other. Nothing is
//! asserted.

mod capture_pop3;
mod forecast;
mod login;
mod rehearsal;
