//! What a replica's service is: whether the group wants it, and what peers are told of it.

use hybster_net::Application;
use hybster_proto::service::{Service, ServiceIdentity, ServiceName};

use super::StartError;
use crate::group::Group;

/// What the service says that it is.
///
/// # Errors
/// If the group is for another service or version, or if the service has no possible name.
pub(super) fn check<S: Service>(
    group: &Group,
    service: &S,
) -> Result<Option<ServiceIdentity>, StartError> {
    let runs = service.identity();
    if let Some(runs) = runs {
        let name = runs.name();
        name.parse::<ServiceName>().map_err(|error| StartError::ServiceName { name, error })?;
    }
    let Some(service) = &group.config().service else { return Ok(runs) };
    let version = group.service_version();
    let is_wanted = runs.is_some_and(|runs| {
        runs.name() == service.as_str() && version.is_none_or(|version| runs.runs_as(version))
    });
    if is_wanted {
        return Ok(runs);
    }
    let (file, service) = (group.path().to_owned(), service.clone());
    Err(StartError::OtherService { file, service, version, runs })
}

/// What peers are told of a service that was checked.
pub(super) fn told(service: &ServiceIdentity) -> Option<Application> {
    Application::new(service.name(), service.version(), service.oldest_compatible()).ok()
}

#[cfg(test)]
mod tests {
    use hybster_proto::config::GroupConfig;

    use super::*;
    use crate::group::{CreateOptions, generate};
    use crate::typed::{NoRefusal, Typed, TypedService};
    use crate::{Context, paged::Paged};

    struct Named(Option<ServiceIdentity>);

    impl TypedService for Named {
        type Operation = ();
        type Reply = ();
        type Refusal = NoRefusal;

        fn identity(&self) -> Option<ServiceIdentity> {
            self.0
        }

        fn execute(&mut self, _: &Context, (): ()) -> Result<(), NoRefusal> {
            Ok(())
        }

        fn state(&mut self) -> Vec<&mut dyn Paged> {
            Vec::new()
        }
    }

    fn group(service: Option<&str>, service_version: Option<u32>) -> Group {
        let service = service.map(|name| name.parse().unwrap());
        let config = GroupConfig { service, ..GroupConfig::default() };
        let made = generate(&CreateOptions { config, service_version, ..Default::default() });
        let group = made.unwrap().group;
        // As others read it.
        let read = Group::from_text(&group.to_text()).unwrap();
        assert_eq!(read.config().digest(), group.config().digest());
        assert_eq!(read.service_version(), service_version);
        read
    }

    #[test]
    fn a_service_starts_in_a_group_that_is_for_it() {
        let bank = ServiceIdentity::new("bank", 3).compatible_from(2);
        let starts = |group: &Group, service| check(group, &Typed(Named(service)));
        for (name, version, service) in [
            (None, None, None),
            (None, None, Some(bank)),
            (Some("bank"), None, Some(bank)),
            (Some("bank"), Some(3), Some(bank)),
            (Some("bank"), Some(2), Some(bank)),
        ] {
            assert_eq!(starts(&group(name, version), service).unwrap(), service);
        }
        for (name, version, service, told) in [
            (
                "shop",
                None,
                Some(bank),
                "for the service shop, and this program's is bank version 3",
            ),
            ("bank", Some(4), Some(bank), "the service bank version 4, and this program's is bank"),
            (
                "bank",
                Some(1),
                Some(bank),
                "bank version 3 (compatible from 2): start a program with",
            ),
            ("bank", Some(1), None, "does not say what it is: let it say so (`Service::identity`)"),
        ] {
            let error = starts(&group(Some(name), version), service).unwrap_err().to_string();
            assert!(error.contains(told) && error.contains("group.toml"), "{error}");
        }
        let nameless = Some(ServiceIdentity::new("no name", 1));
        let error = starts(&group(None, None), nameless).unwrap_err().to_string();
        assert!(error.contains("\"no name\"") && error.contains("1 to 64 letters"), "{error}");
    }

    #[test]
    fn a_version_without_a_service_is_refused() {
        let options = CreateOptions { service_version: Some(1), ..Default::default() };
        assert!(generate(&options).unwrap_err().to_string().contains("config.service"));
        let text = group(Some("bank"), Some(1)).to_text().replace("service = \"bank\"\n", "");
        let error = Group::from_text(&text).unwrap_err().to_string();
        assert!(error.contains("service_version") && error.contains("name the service"), "{error}");
        let text = group(Some("bank"), None).to_text().replace("\"bank\"", "\"a bank\"");
        let error = Group::from_text(&text).unwrap_err().to_string();
        assert!(error.contains("a bank") && error.contains("1 to 64 letters"), "{error}");
    }

    /// Its digest is in the certificates, so it must be as it was for the group's whole life.
    #[test]
    fn a_version_that_rises_leaves_the_group_as_it_is() {
        let old = group(Some("bank"), Some(1));
        let new = old.to_text().replace("service_version = 1\n", "service_version = 2\n");
        let new = Group::from_text(&new).unwrap();
        assert_eq!(new.service_version(), Some(2));
        assert_eq!(new.config().digest(), old.config().digest());
    }
}
