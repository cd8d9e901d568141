//! HTTP in front of one mesh node. Read `routes` for what it answers, `serve` for how requests get there, `settings` for
//! what it can be told.

mod admission;
mod app;
mod authorization;
mod body;
mod connection;
mod fault;
mod headers;
mod last_minute;
mod listener;
mod pause;
mod pieces;
mod problem;
mod process;
mod query;
mod routes;
mod serve;
mod settings;
mod shutdown;
mod stream;
mod timing;
mod tls;
mod token;
mod upkeep;
mod workers;

pub use self::settings::{HttpSettings, Settings};
pub use app::App;
pub use connection::Connections;
pub use listener::{ListenError, Listeners};
pub use process::connections_within_file_limit;
pub use shutdown::{Shutdown, ShutdownPhase};
pub use tls::{HttpTls, TlsFileError};
pub use token::Token;
pub use upkeep::{TelemetryObserver, announce, run_upkeep};
pub use workers::Workers;
