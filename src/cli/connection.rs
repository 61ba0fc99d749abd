//! Arguments of the connection to a server, which several commands take.

use std::path::PathBuf;

use tapio_wire::{ClientAccess, TlsClientConfig};

use super::output::Usage;

/// The variable with the address of the server.
const SERVER_VARIABLE: &str = "TAPIO_SERVER";
/// The address of a server on this machine.
const DEFAULT_SERVER: &str = "127.0.0.1:7600";

/// The address in `$TAPIO_SERVER`, else that of a server on this machine.
fn default_server() -> String {
    let set = std::env::var(SERVER_VARIABLE).ok().filter(|server| !server.is_empty());
    set.unwrap_or_else(|| DEFAULT_SERVER.to_owned())
}

/// How the server is authenticated, and the caller.
#[derive(clap::Args, Clone, Debug, Default)]
pub(super) struct AccessArgs {
    /// Authorities of the server's certificate, for https://; by default the system's
    #[arg(long, value_name = "FILE")]
    tls_ca: Option<PathBuf>,
    /// Certificate to present
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Its private key
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Name in the server's certificate, if it isn't the host's
    #[arg(long, value_name = "NAME")]
    tls_server_name: Option<String>,
    /// File of the token to send
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

impl AccessArgs {
    /// The access to an endpoint, which is that of the argument `name`.
    ///
    /// # Errors
    /// When they can't be used together.
    pub(super) fn access(&self, name: &str, endpoint: &str) -> Result<ClientAccess, Usage> {
        // A path of a command line is below the current folder, whatever the variables.
        let here = |path: &Option<PathBuf>| {
            path.as_ref().map(|path| std::path::absolute(path).unwrap_or_else(|_| path.clone()))
        };
        let tls = TlsClientConfig {
            ca: here(&self.tls_ca),
            cert: here(&self.tls_cert),
            key: here(&self.tls_key),
            server_name: self.tls_server_name.clone(),
        };
        let tls = (tls != TlsClientConfig::default()).then_some(tls);
        let access = ClientAccess { tls, token_file: here(&self.token_file) };
        access.check([(name, endpoint)]).map_err(Usage)?;
        Ok(access)
    }
}

/// The server that a command asks.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct ServerArgs {
    /// The server's gRPC address: HOST:PORT, https://HOST:PORT or unix:/PATH; $TAPIO_SERVER
    #[arg(long, value_name = "ADDR", default_value_t = default_server())]
    pub(super) server: String,
    #[command(flatten)]
    access: AccessArgs,
}

impl ServerArgs {
    /// How to connect.
    ///
    /// # Errors
    /// When the arguments can't be used together.
    pub(super) fn access(&self) -> Result<ClientAccess, Usage> {
        self.access.access("--server", &self.server)
    }
}
