//! Server address and credentials: the service account of a pod, or a configured kubeconfig.

use std::path::Path;
use std::time::Duration;

use kube::client::Client;
use kube::config::{Config as ClientConfig, KubeConfigOptions, Kubeconfig};

use super::config::Config;
use crate::runtime::CollectorError;

/// Time limit for connecting to the server.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Folder of the pod's service account.
pub(super) const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Path of the service account's token. The kubelet renews it, so the client reads it again each
/// minute.
const TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

const NO_CLUSTER: &str = "k8s collector disabled: no service account (not a pod) and no \
     collectors.k8s.kubeconfig; set collectors.k8s.kubeconfig to a file, or collectors.k8s.enabled \
     to false";

/// Finds the server and the credentials. A developer's own `~/.kube/config` and `$KUBECONFIG` are
/// never used implicitly.
///
/// # Errors
/// `Unavailable` where no cluster is configured; `Failed` where its configuration can't be read
/// (yet).
pub(super) async fn client_config(config: &Config) -> Result<ClientConfig, CollectorError> {
    let failed = |e: &dyn std::fmt::Display| CollectorError::new("cluster configuration", e);
    let mut found = match &config.kubeconfig {
        Some(path) => from_file(path, config.context.as_deref()).await?,
        None if Path::new(TOKEN).exists()
            && std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() =>
        {
            ClientConfig::incluster().map_err(|e| failed(&e))?
        }
        None => return Err(CollectorError::Unavailable(NO_CLUSTER.to_owned())),
    };
    found.connect_timeout = Some(CONNECT_TIMEOUT);
    // The feeds retry, count and report failures themselves.
    found.default_retry = false;
    Ok(found)
}

async fn from_file(path: &Path, context: Option<&str>) -> Result<ClientConfig, CollectorError> {
    let name = path.display().to_string();
    let file = Kubeconfig::read_from(path).map_err(|e| CollectorError::new(&name, e))?;
    let options = KubeConfigOptions { context: context.map(str::to_owned), ..Default::default() };
    let config = ClientConfig::from_custom_kubeconfig(file, &options).await;
    config.map_err(|e| CollectorError::new(&name, e))
}

/// Makes a client, which is bound to the current tokio runtime.
pub(super) fn client(config: ClientConfig) -> Result<Client, CollectorError> {
    Client::try_from(config).map_err(|e| CollectorError::new("API server client", e))
}
