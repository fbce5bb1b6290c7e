//! The mirror rules of another deltaport, for commands: its own extension of the protocol.

use deltaport_oci::RepositoryName;
use deltaport_oci::wire::{Query, Route};
use http::Method;

use crate::auth::Scope;
use crate::error::Result;
use crate::image::ImageAnswer;
use crate::transport::Request;
use crate::upstream::Upstream;

/// What is to be done with a mirror rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MirrorRequest {
    /// To tell what a run would do.
    Plan,
    /// To run it in its hours.
    Run,
    /// To run it, whatever the hour.
    RunNow,
}

impl Upstream {
    /// Asks a deltaport which mirror rules it has, as far as we may know. Other registries do not know the question and
    /// refuse.
    pub async fn mirrors(&self) -> Result<ImageAnswer> {
        let url = self.url(&Route::Mirrors).map_err(|kind| self.fail(kind))?;
        let answer = self.ask(Scope::REGISTRY, Request::new(Method::GET, url)).await?;
        self.read_answer("the list of mirror rules", answer).await
    }

    /// Asks a deltaport to plan or to run the rule that fills `repository`. With the number of a `run`, it is asked how
    /// far that is, and nothing is begun.
    pub async fn mirror(
        &self,
        request: MirrorRequest,
        repository: &RepositoryName,
        rule: &str,
        run: Option<u64>,
    ) -> Result<ImageAnswer> {
        let route = Route::Mirror(repository.clone(), rule.to_owned());
        let mut url = self.url(&route).map_err(|kind| self.fail(kind))?;
        let number = run.map(|run| run.to_string());
        let now = (request == MirrorRequest::RunNow).then_some(("now", "true"));
        let query: Vec<_> = number.iter().map(|number| ("run", number.as_str())).chain(now).collect();
        if !query.is_empty() {
            url.set_query(Some(&Query::render(query)));
        }
        let (method, scope) = match request {
            MirrorRequest::Plan => (Method::GET, Scope::pull(repository)),
            MirrorRequest::Run | MirrorRequest::RunNow => (Method::POST, Scope::push(repository)),
        };
        let answer = self.ask(scope, Request::new(method, url)).await?;
        self.read_answer("what is said about the mirror rule", answer).await
    }
}
