//! Experiments: what is read from the records of runs, and what is made again from them.
//!
//! A record is written once (`record.rs`) and never changed; everything here reads. [`account`] is one
//! run, [`history`] all of them, [`values`] what can be compared between runs, and the rest builds on
//! these. Nothing here decides what a run does.

pub mod account;
pub mod archive;
pub mod chart;
pub mod compare;
pub mod differ;
pub mod grid;
pub mod history;
pub mod ledger;
pub mod repository;
pub mod reproduce;
pub mod restore;
pub mod sources;
pub mod trials;
pub mod values;
