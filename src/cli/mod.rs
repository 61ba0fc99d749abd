//! The command line. Data goes to standard output, messages to standard error. Exit code 0:
//! success; 1: failure; 2: invalid arguments, configuration or rules.

mod arguments;
mod bench;
mod check;
mod command;
mod connection;
mod demo;
mod doctor;
mod explain;
mod live;
mod load;
mod log;
mod notify;
mod output;
mod process;
mod quarantine;
mod refused;
mod reload;
mod replay;
mod rules;
mod run;
mod server;
mod service;
mod signals;
mod story;
mod tail;
mod telemetry;

pub use command::main;
