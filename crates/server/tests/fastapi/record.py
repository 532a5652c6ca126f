"""Records what FastAPI answers to every kind of faulty request: python record.py > recorded.json

Needs fastapi (0.165 when this was recorded) and httpx. The tests of `lax`, `body` and `query` compare with it.
"""

import json
from typing import Optional

from fastapi import FastAPI, Query
from fastapi.testclient import TestClient
from pydantic import BaseModel, Field

app = FastAPI()


class Plan(BaseModel):
    command: str = Field(min_length=1, max_length=12)
    cwd: Optional[str] = Field(None, max_length=5)
    timeout_s: Optional[int] = Field(None, ge=1, le=3600)
    dedupe: Optional[bool] = None
    env: Optional[dict[str, str]] = None


@app.post("/plan")
def plan(body: Plan):
    return [body.timeout_s, body.dedupe]


class Denial(BaseModel):
    reason: Optional[str] = None


@app.post("/deny")
def deny(body: Optional[Denial] = None):
    return []


class Token(BaseModel):
    roles: list[str]
    timeout_s: int = Field(ge=1, le=3600)


@app.post("/token")
def token(body: Token):
    return []


@app.get("/list")
def list_(limit: int = Query(50, ge=1, le=500), before: Optional[int] = Query(None, ge=0), follow: bool = False):
    return [limit, before, follow]


@app.get("/need")
def need(old: int = Query(ge=0)):
    return [old]


client = TestClient(app)
recorded = []


def post(path, body, kind="application/json"):
    answer = client.post(path, content=body, headers={"content-type": kind})
    recorded.append({"path": path, "kind": kind, "body": body, "status": answer.status_code, "answer": answer.json()})


def get(path, query):
    answer = client.get(f"{path}?{query}")
    recorded.append({"path": path, "query": query, "status": answer.status_code, "answer": answer.json()})


for value in [
    '30', '"30"', '" 30 "', '"+30"', '"3_0"', '"_30"', '"3__0"', '"030"', '30.0', '"30.0"', '"30."', '".0"', '"30.5"', '30.5',
    '3e1', '"1e1"', 'true', 'false', 'null', '[]', '{}', '""', '"x"', '0', '-1', '3601', '"3601"', '"-0"', '"--1"', '"0x1"',
    '9223372036854775807', '9223372036854775808', '99999999999999999999', '"99999999999999999999"', '"\u0663"', '"' + '9' * 5000 + '"',
]:
    post("/plan", '{"command":"ls","timeout_s":%s}' % value)
for value in [
    'true', 'false', '1', '0', '2', '1.0', '0.5', '"true"', '"TRUE"', '"yes"', '"no"', '"on"', '"off"', '"t"', '"f"', '"y"', '"n"',
    '"1"', '"0"', '"x"', '""', '" true"', 'null', '[]', '{}',
]:
    post("/plan", '{"command":"ls","dedupe":%s}' % value)
for value in ['null', '[]', '"x"', '1', '{"A":"b"}', '{"A":1,"B":null}']:
    post("/plan", '{"command":"ls","env":%s}' % value)
for body in [
    '', '{}', '{"other":1}', '{"command":""}', '{"command":null}', '{"command":7}', '{"command":true}', '{"command":[]}',
    '{"command":"xxxxxxxxxxxxx"}', '{"command":"\u00e4\u00e4\u00e4\u00e4\u00e4\u00e4\u00e4\u00e4\u00e4\u00e4\u00e4\u00e4"}',
    '{"command":"ls","cwd":"/abcdef"}', '{"command":"ls","cwd":null}', '{"command":"ls","unknown":{}}',
    '{"command":"","timeout_s":0,"dedupe":"x"}', '[]', '"x"', '3', 'null', 'true',
]:
    post("/plan", body)
for kind in [
    'text/plain', 'application/x-www-form-urlencoded', 'application/json; charset=utf-8', 'application/vnd.x+json',
    'APPLICATION/JSON', 'application/jsonx',
]:
    post("/plan", '{"command":"ls"}', kind)
    post("/plan", '', kind)
for body in ['', 'null', '{}', '[]', '{"reason":3}']:
    post("/deny", body)
for body in ['{}', '{"roles":null,"timeout_s":null}', '{"roles":{},"timeout_s":"x"}', '{"roles":["a",1,null],"timeout_s":1}',
             '{"roles":"x","timeout_s":1}', '{"roles":["a"],"more":{}}']:
    post("/token", body)
for query in [
    '', 'limit=0', 'limit=501', 'limit=x', 'limit=', 'limit', 'limit=1&limit=2', 'limit=x&limit=2', 'limit=2&limit=x', 'limit=1.0',
    'limit=1.5', 'limit=%201', 'limit=+1', 'limit=%2B1', 'limit=-1', 'limit=true', 'limit=99999999999999999999', 'limit=1_0', 'x=1',
    'before=', 'before=-1', 'before=x&limit=x', 'limit=%ff', 'limit=%zz', 'limit=%D9%A3', 'limit=5%00', 'LIMIT=1', 'limit=3;before=1',
    '&&limit=2&', 'follow=1', 'follow=x', 'follow=', 'follow=TRUE', 'follow=off', 'limit=0&before=-1&follow=2',
]:
    get("/list", query)
for query in ['', 'old=', 'old=3']:
    get("/need", query)

print("[\n" + ",\n".join(map(json.dumps, recorded)) + "\n]")
