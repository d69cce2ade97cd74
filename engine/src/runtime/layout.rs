//! The assignment of stages to agents.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How the stages of a replica are spread over threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// Split if there is a core for every busy stage, otherwise fused.
    #[default]
    Auto,
    /// All stages on one thread: no wake-up and no atomic on a request's path. Best on few cores.
    Fused,
    /// One thread each for the network, every pillar, the execution and the state stage.
    Split,
}

/// A name that no layout has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a layout: write \"auto\", \"fused\" or \"split\"")]
pub struct UnknownLayout(String);

impl Layout {
    const ALL: [Self; 3] = [Self::Auto, Self::Fused, Self::Split];

    /// The name in configuration files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Fused => "fused",
            Self::Split => "split",
        }
    }

    /// Decides [`Layout::Auto`]: the network, P pillars and the execution stage need a core each;
    /// the state stage works in the background.
    #[must_use]
    pub fn resolve(self, pillars: u16, cores: usize) -> Self {
        match self {
            Self::Auto if cores >= usize::from(pillars) + 2 => Self::Split,
            Self::Auto => Self::Fused,
            chosen => chosen,
        }
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Layout {
    type Err = UnknownLayout;

    fn from_str(name: &str) -> Result<Self, UnknownLayout> {
        let found = Self::ALL.into_iter().find(|layout| layout.name() == name);
        found.ok_or_else(|| UnknownLayout(name.to_owned()))
    }
}

/// The role of a stage in the replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Clients,
    Control,
    Pillar(u16),
    Execution,
    State,
    /// The whole of an unreplicated server.
    Server,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Clients => f.write_str("clients"),
            Self::Control => f.write_str("control"),
            Self::Pillar(pillar) => write!(f, "pillar {pillar}"),
            Self::Execution => f.write_str("execution"),
            Self::State => f.write_str("state"),
            Self::Server => f.write_str("server"),
        }
    }
}

/// An agent to be started. The first one in a plan owns the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AgentPlan {
    pub(crate) name: String,
    pub(crate) roles: Vec<Role>,
    pub(crate) core: Option<usize>,
}

/// The cores that agents are pinned to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cores {
    /// Not pinned: the system schedules them.
    Unpinned,
    /// These, in the order of the agents; the list repeats if there are too few.
    Pinned(Vec<usize>),
}

/// Spreads stages over agents. `layout` must be resolved.
pub(crate) fn plan(layout: Layout, roles: &[Role], cores: &Cores) -> Vec<AgentPlan> {
    let mut plans: Vec<AgentPlan> = Vec::new();
    for role in roles {
        let name = match (layout, role) {
            (Layout::Split, Role::Clients | Role::Control) => "network".to_owned(),
            (Layout::Split, role) => role.to_string(),
            _ => "all".to_owned(),
        };
        match plans.iter_mut().find(|plan| plan.name == name) {
            Some(plan) => plan.roles.push(*role),
            None => plans.push(AgentPlan { name, roles: vec![*role], core: None }),
        }
    }
    // The network has the first agent, even without a stage beside it as in an unreplicated server.
    if layout == Layout::Split && plans.iter().all(|plan| plan.name != "network") {
        plans.insert(0, AgentPlan { name: "network".to_owned(), roles: Vec::new(), core: None });
    }
    if let Cores::Pinned(list) = cores {
        for (plan, core) in plans.iter_mut().zip(list.iter().cycle()) {
            plan.core = Some(*core);
        }
    }
    plans
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROLES: [Role; 6] = [
        Role::Clients,
        Role::Control,
        Role::Pillar(0),
        Role::Pillar(1),
        Role::Execution,
        Role::State,
    ];

    #[test]
    fn names_survive_the_round_trip() {
        for layout in Layout::ALL {
            assert_eq!(layout.to_string().parse(), Ok(layout));
        }
        assert!("round".parse::<Layout>().unwrap_err().to_string().contains("\"auto\""));
    }

    #[test]
    fn auto_is_fused_on_two_cores_and_split_when_cores_abound() {
        assert_eq!(Layout::Auto.resolve(1, 2), Layout::Fused);
        assert_eq!(Layout::Auto.resolve(2, 3), Layout::Fused);
        assert_eq!(Layout::Auto.resolve(2, 4), Layout::Split);
        assert_eq!(Layout::Fused.resolve(2, 64), Layout::Fused);
        assert_eq!(Layout::Split.resolve(2, 1), Layout::Split);
    }

    #[test]
    fn every_stage_has_one_agent_and_the_network_comes_first() {
        let fused = plan(Layout::Fused, &ROLES, &Cores::Unpinned);
        assert_eq!(fused.len(), 1);
        assert_eq!(fused[0].roles, ROLES);
        let split = plan(Layout::Split, &ROLES, &Cores::Pinned(vec![4, 5]));
        let names: Vec<_> = split.iter().map(|plan| plan.name.as_str()).collect();
        assert_eq!(names, ["network", "pillar 0", "pillar 1", "execution", "state"]);
        assert_eq!(split[0].roles, [Role::Clients, Role::Control]);
        let cores: Vec<_> = split.iter().map(|plan| plan.core.unwrap()).collect();
        assert_eq!(cores, [4, 5, 4, 5, 4]);
        let server = plan(Layout::Split, &[Role::Server], &Cores::Unpinned);
        assert_eq!((server.len(), server[0].name.as_str()), (2, "network"));
        assert_eq!(plan(Layout::Fused, &[Role::Server], &Cores::Unpinned).len(), 1);
    }
}
