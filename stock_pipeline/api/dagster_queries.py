"""The questions to Dagster's GraphQL. A test compares them with the schema of the installed version."""

from __future__ import annotations

_RUN = "runId status jobName rootRunId creationTime tags { key value }"
_ERRORS = """
    ... on RunConfigValidationInvalid { errors { message path } }
    ... on Error { message }
"""

LAUNCH = f"""
mutation Launch($parameters: ExecutionParams!) {{
  launchRun(executionParams: $parameters) {{
    __typename
    ... on LaunchRunSuccess {{ run {{ {_RUN} }} }}
    {_ERRORS}
  }}
}}
"""

REPEAT = f"""
mutation Repeat($parameters: ReexecutionParams!) {{
  launchRunReexecution(reexecutionParams: $parameters) {{
    __typename
    ... on LaunchRunSuccess {{ run {{ {_RUN} }} }}
    {_ERRORS}
  }}
}}
"""

TERMINATE = """
mutation Terminate($runs: [String!]!) {
  terminateRuns(runIds: $runs) {
    __typename
    ... on TerminateRunsResult {
      terminateRunResults { __typename ... on TerminateRunFailure { message } ... on PythonError { message } }
    }
    ... on PythonError { message }
  }
}
"""

DELETE = """
mutation Delete($run: String!) {
  deletePipelineRun(runId: $run) { __typename ... on Error { message } }
}
"""

FIND = f"""
query Find($filter: RunsFilter!) {{
  runsOrError(filter: $filter, limit: 100) {{
    __typename
    ... on Runs {{ results {{ {_RUN} }} }}
    ... on Error {{ message }}
  }}
}}
"""

GET = f"""
query Get($run: ID!) {{
  runOrError(runId: $run) {{ __typename ... on Run {{ {_RUN} }} ... on Error {{ message }} }}
}}
"""

HEALTH = "query Health { version }"

ALL = (LAUNCH, REPEAT, TERMINATE, DELETE, FIND, GET, HEALTH)
