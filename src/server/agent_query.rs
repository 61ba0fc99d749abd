//! Queries for the agents.

use super::agents::AgentPage;
use super::shared::Shared;
use super::storage::InvalidParameter;
use tapio_core::clock;
use tapio_wire::{MAX_NODE_BYTES, proto};

/// Agents listed where the request gives no limit; the bytes of a page are bounded in any case.
const DEFAULT_LIMIT: usize = 100;

/// The page of agents that a request asks for.
#[derive(Clone, Debug, Default)]
pub(super) struct AgentRequest {
    /// 0 for the default.
    pub(super) limit: u32,
    /// Empty for any.
    pub(super) node: String,
    pub(super) page_token: String,
}

impl Shared {
    /// Lists agents, in the order of their nodes.
    ///
    /// # Errors
    /// The invalid parameter.
    pub(super) fn list_agents(
        &self,
        request: &AgentRequest,
    ) -> Result<proto::ListAgentsResponse, InvalidParameter> {
        let after = match request.page_token.as_str() {
            "" => None,
            token => Some(parse_token(token).ok_or_else(|| InvalidParameter {
                name: "page_token",
                cause: format!("{token:?} isn't a token of this list"),
            })?),
        };
        let now_ns = clock::wall_ns();
        if !request.node.is_empty() {
            let agent = self.agents().get(&request.node, now_ns);
            let agents = agent.into_iter().filter(|_| after.is_none()).collect();
            return Ok(proto::ListAgentsResponse { agents, next_page_token: String::new() });
        }
        let limit = match request.limit as usize {
            0 => DEFAULT_LIMIT,
            n => n,
        };
        let AgentPage { agents, next } = self.agents().page(after.as_deref(), limit, now_ns);
        let next_page_token = next.map(|node| token(&node)).unwrap_or_default();
        Ok(proto::ListAgentsResponse { agents, next_page_token })
    }
}

/// The token of the page behind a node: the node's name in hexadecimal digits.
fn token(node: &str) -> String {
    node.bytes().map(|byte| format!("{byte:02x}")).collect()
}

fn parse_token(token: &str) -> Option<String> {
    if token.len() > 2 * MAX_NODE_BYTES || !token.len().is_multiple_of(2) || !token.is_ascii() {
        return None;
    }
    let digits = |at: usize| u8::from_str_radix(token.get(at..at + 2)?, 16).ok();
    let bytes = (0..token.len()).step_by(2).map(digits).collect::<Option<Vec<u8>>>()?;
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_is_the_node() {
        for node in ["n", "worker-1.example", "ä"] {
            assert_eq!(parse_token(&token(node)).as_deref(), Some(node));
        }
        for wrong in ["1", "xy", "ff", "ä", &"61".repeat(256)] {
            assert_eq!(parse_token(wrong), None, "{wrong}");
        }
    }
}
