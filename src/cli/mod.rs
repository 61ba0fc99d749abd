//! The command line. Data goes to standard output, messages to standard error. Exit code 0:
//! success; 1: failure; 2: invalid arguments, configuration or rules.

mod agents;
mod arguments;
mod bench;
mod check;
mod command;
mod config;
mod connection;
mod debug;
mod demo;
mod doctor;
mod event_line;
mod evidence;
mod kubectl;
mod listeners;
mod live;
mod load;
mod log;
mod mcp;
mod notifications;
mod notify;
mod output;
mod process;
mod quarantine;
mod query;
mod refused;
mod reload;
mod replay;
mod rules;
mod run;
mod server;
mod service;
mod shell;
mod signals;
mod story;
mod telemetry;
mod top;

pub use command::main;
