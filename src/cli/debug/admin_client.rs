//! Requests to the admin pages of the running agent.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use axum::body::{Body, BodyDataStream};
use axum::http::{Method, Response};
use serde_json::Value as Json;
use tokio_stream::StreamExt as _;

use crate::cli::connection::AccessArgs;
use crate::cli::run::config;
use crate::runtime::{Config, OPERATOR_HEADER, OperatorSecret};
use tapio_wire::{HttpClient, ListenAddress};

/// Time limit for the beginning of an answer, and for each part of it.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest page that is kept in memory.
const MAX_PAGE_BYTES: usize = 64 << 20;

/// The agent that a command concerns.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct AgentArgs {
    /// The agent's configuration file, which has its admin address and state folder
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The address of its admin pages: HOST:PORT, https://HOST:PORT or unix:/PATH
    #[arg(long, value_name = "ADDR")]
    admin: Option<String>,
    #[command(flatten)]
    access: AccessArgs,
}

impl AgentArgs {
    /// The agent's configuration.
    ///
    /// # Errors
    /// An error in the file.
    pub(super) fn config(&self) -> anyhow::Result<Config> {
        config(self.config.as_deref())
    }

    /// A client of the agent's pages.
    ///
    /// # Errors
    /// When the arguments can't be used together, or a file can't be read.
    pub(super) fn client(&self, config: &Config) -> anyhow::Result<AdminClient> {
        let address = self.admin.clone().unwrap_or_else(|| endpoint(config));
        let access = self.access.access("--admin", &address)?;
        let http = HttpClient::new(&address, &access).map_err(anyhow::Error::msg)?;
        // Where the listener authenticates, there is none.
        let secret = OperatorSecret::read(&config.state_dir()).map_err(|e| e.to_string());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(AdminClient { http, address, secret, runtime })
    }
}

/// The address of the pages as a client of this node has it.
fn endpoint(config: &Config) -> String {
    let scheme = if config.admin.tls.is_some() { "https://" } else { "http://" };
    match &config.admin.listen {
        ListenAddress::Unix(path) => format!("unix:{}", path.display()),
        ListenAddress::Tcp(address) => {
            let ip = match address.ip() {
                IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
                IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
                ip => ip,
            };
            format!("{scheme}{}", SocketAddr::new(ip, address.port()))
        }
    }
}

/// A client of an agent's pages.
pub(super) struct AdminClient {
    http: HttpClient,
    address: String,
    secret: Result<String, String>,
    runtime: tokio::runtime::Runtime,
}

impl AdminClient {
    /// The address.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// A page as text.
    ///
    /// # Errors
    /// When the agent can't be reached or refuses.
    pub(super) fn page(&self, path: &str) -> anyhow::Result<String> {
        self.runtime.block_on(async {
            let response = self.send(Method::GET, path, None).await?;
            // `/readyz` has its causes with another status.
            let text = text(response.into_body().into_data_stream()).await?;
            Ok(text)
        })
    }

    /// Changes the agent; returns its answer.
    ///
    /// # Errors
    /// When the agent can't be reached or refuses.
    pub(super) fn post(&self, path: &str, body: &Json) -> anyhow::Result<Json> {
        self.runtime.block_on(async {
            let response = self.send(Method::POST, path, Some(body)).await?;
            let response = self.accepted(response).await?;
            let text = text(response.into_body().into_data_stream()).await?;
            serde_json::from_str(&text).context("the agent's answer isn't JSON")
        })
    }

    /// Writes a page, part by part.
    ///
    /// # Errors
    /// When the agent can't be reached or refuses, or `write` fails.
    pub(super) fn stream(
        &self,
        path: &str,
        mut write: impl FnMut(&[u8]) -> std::io::Result<()>,
    ) -> anyhow::Result<()> {
        self.runtime.block_on(async {
            let response = self.send(Method::GET, path, None).await?;
            let mut body = self.accepted(response).await?.into_body().into_data_stream();
            while let Some(part) = next(&mut body).await? {
                write(&part)?;
            }
            Ok(())
        })
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Json>,
    ) -> anyhow::Result<Response<Body>> {
        let headers: Vec<(&str, &str)> =
            self.secret.iter().map(|secret| (OPERATOR_HEADER, secret.as_str())).collect();
        let body = body.map_or_else(Vec::new, |body| body.to_string().into_bytes());
        let sent = self.http.request(method, path, &headers, body);
        let answered = tokio::time::timeout(ANSWER_TIMEOUT, sent).await;
        let cause = match answered {
            Ok(Ok(response)) => return Ok(response),
            Ok(Err(cause)) => cause,
            Err(_) => format!("no answer within {} s", ANSWER_TIMEOUT.as_secs()),
        };
        anyhow::bail!(
            "no agent answers at {}: {cause}; --config or --admin names another",
            self.address
        )
    }

    async fn accepted(&self, response: Response<Body>) -> anyhow::Result<Response<Body>> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let text = text(response.into_body().into_data_stream()).await.unwrap_or_default();
        let json = serde_json::from_str::<Json>(&text).unwrap_or_default();
        let cause = json.get("error").and_then(Json::as_str).unwrap_or(text.trim()).to_owned();
        match &self.secret {
            Err(error) if cause.contains(OPERATOR_HEADER) => {
                anyhow::bail!("the agent at {} refuses: {cause} ({error})", self.address)
            }
            _ => anyhow::bail!("the agent at {} refuses: {status}: {cause}", self.address),
        }
    }
}

async fn next(body: &mut BodyDataStream) -> anyhow::Result<Option<axum::body::Bytes>> {
    let next = tokio::time::timeout(ANSWER_TIMEOUT, body.next()).await;
    Ok(next.context("the agent's answer ends in the middle")?.transpose()?)
}

async fn text(mut body: BodyDataStream) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    while let Some(part) = next(&mut body).await? {
        if bytes.len() + part.len() > MAX_PAGE_BYTES {
            break;
        }
        bytes.extend_from_slice(&part);
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
