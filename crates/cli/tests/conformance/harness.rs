//! The configurations, the servers that tests share, and the macro that makes tests of requirements.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use deltaport_testkit::http::{Client, Request, Response};
use deltaport_testkit::process::{Launch, Server};
use deltaport_testkit::tls::Certificates;
use tokio::runtime::{Builder, Runtime};

/// Makes of each function one test per configuration, named `<module>::<configuration>::<function>`.
macro_rules! requirements {
    ($($(#[doc = $doc:literal])* async fn $name:ident($registry:ident: &Registry) $body:block)*) => {
        $($(#[doc = $doc])* async fn $name($registry: &Registry) $body)*
        requirements!(@for anonymous, Anonymous, $($name)*);
        requirements!(@for passwords_and_tls, PasswordsAndTls, $($name)*);
        requirements!(@for validated, Validated, $($name)*);
    };
    (@for $module:ident, $setup:ident, $($name:ident)*) => {
        mod $module {
            $(
                #[test]
                fn $name() {
                    use $crate::harness::{Setup, check};
                    check(Setup::$setup, module_path!(), stringify!($name), super::$name);
                }
            )*
        }
    };
}
pub(crate) use requirements;

/// How a registry under test is configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Setup {
    /// No configuration at all: loopback may do everything, and sparse content is taken.
    Anonymous,
    /// TLS, and users who log in: alice may do everything, bob may pull what is under `public/`, and pull and push what
    /// is under `bob/`.
    PasswordsAndTls,
    /// `validate = "all"`: what a manifest refers to has to be there.
    Validated,
}

/// alice may do everything.
pub(crate) const ALICE: (&str, &str) = ("alice", "opensesame");
/// bob may pull what is under `public/`, and pull and push what is under `bob/`.
pub(crate) const BOB: (&str, &str) = ("bob", "letmein");

/// Their passwords as Apache's `htpasswd -B` writes them, with the lowest cost: the tests log in with every request.
const HTPASSWD: &str = "\
alice:$2y$05$i/0ceI62qpQjWbTDQZB9c.S5EyRQKG/gQhbjUB6H2plWoOWRyIus6
bob:$2y$05$aiDSNCohK/doSGnJ8GYcMeMPOLuR8qi9/Xaz1Z2tEcYquf.hOLvGq
";

impl Setup {
    fn launch(self) -> Launch {
        let launch = Launch::new(env!("CARGO_BIN_EXE_deltaport"));
        match self {
            Self::Anonymous => launch,
            Self::Validated => launch.config("validate = \"all\"\n"),
            Self::PasswordsAndTls => {
                let launch = launch.tls(Certificates::new());
                launch.file("htpasswd", HTPASSWD);
                let home = launch.home().display();
                let config = format!(
                    r#"
                    [tls]
                    certificate = "{home}/server.crt"
                    key = "{home}/server.key"

                    [access]
                    htpasswd = "{home}/htpasswd"

                    [[access.rule]]
                    repositories = ["**"]
                    allow = ["pull", "push", "delete"]
                    users = ["alice"]

                    [[access.rule]]
                    repositories = ["public/**"]
                    allow = ["pull"]
                    users = ["bob"]

                    [[access.rule]]
                    repositories = ["bob/**"]
                    allow = ["pull", "push"]
                    users = ["bob"]
                    "#
                );
                launch.config(&config)
            }
        }
    }

    /// The server of this configuration. Tests that run in one process share it; it ends with the last of them.
    fn server(self, runtime: &Runtime) -> Arc<Server> {
        static RUNNING: [Mutex<Weak<Server>>; 3] = [const { Mutex::new(Weak::new()) }; 3];
        // Where starting it failed in one test, the next one tries again and says the same.
        let mut running = RUNNING[self as usize].lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(server) = running.upgrade() {
            return server;
        }
        let server = Arc::new(runtime.block_on(self.launch().start()));
        *running = Arc::downgrade(&server);
        server
    }
}

/// Runs one requirement against the server of `setup`, in repositories that no other test uses.
pub(crate) fn check(setup: Setup, module: &str, name: &str, requirement: impl AsyncFnOnce(&Registry)) {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let server = setup.server(&runtime);
    let client = match setup {
        Setup::PasswordsAndTls => server.client().logged_in(ALICE.0, ALICE.1),
        Setup::Anonymous | Setup::Validated => server.client(),
    };
    let module = module.split("::").nth(1).expect("requirements are in modules of the crate");
    let registry = Registry { setup, client, repository: format!("{module}/{name}"), server };
    runtime.block_on(requirement(&registry));
}

/// A registry under test, and a repository in it that belongs to the test alone.
#[derive(Debug)]
pub(crate) struct Registry {
    pub(crate) setup: Setup,
    /// Sends requests that may do everything.
    pub(crate) client: Client,
    /// A repository that does not exist yet.
    pub(crate) repository: String,
    server: Arc<Server>,
}

impl Registry {
    /// The same registry with another repository of this test, which does not exist yet either.
    pub(crate) fn other(&self, name: &str) -> Self {
        let repository = format!("{}/{name}", self.repository);
        self.in_repository(&repository)
    }

    /// The same registry as another user has it.
    pub(crate) fn as_user(&self, (user, password): (&str, &str)) -> Self {
        let client = self.client.logged_in(user, password);
        Self { client, ..self.in_repository(&self.repository) }
    }

    /// The same registry as somebody has it who did not log in.
    pub(crate) fn as_stranger(&self) -> Self {
        let client = self.client.anonymous();
        Self { client, ..self.in_repository(&self.repository) }
    }

    /// The same registry with a repository of any name.
    pub(crate) fn in_repository(&self, repository: &str) -> Self {
        let (setup, client, server) = (self.setup, self.client.clone(), Arc::clone(&self.server));
        Self { setup, client, repository: repository.to_owned(), server }
    }

    /// The path of something in the repository.
    pub(crate) fn path(&self, rest: impl std::fmt::Display) -> String {
        format!("/v2/{}/{rest}", self.repository)
    }

    /// Sends a request and returns the response; says in passing what no response may lack.
    pub(crate) async fn send(&self, request: Request) -> Response {
        let shown = format!("{} {}", request.method, request.target);
        let response = self.client.send(request).await;
        assert_ne!(response.status, 500, "{shown}: {}", response.text());
        response
    }

    /// GET of something in the repository.
    pub(crate) async fn get(&self, rest: impl std::fmt::Display) -> Response {
        self.send(Request::get(&self.path(rest))).await
    }

    /// HEAD of something in the repository.
    pub(crate) async fn head(&self, rest: impl std::fmt::Display) -> Response {
        self.send(Request::head(&self.path(rest))).await
    }

    /// DELETE of something in the repository.
    pub(crate) async fn delete(&self, rest: impl std::fmt::Display) -> Response {
        self.send(Request::delete(&self.path(rest))).await
    }
}
