package dev.tidemark.bench.cli;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import com.google.gson.JsonObject;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeUnit;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** The command line where its surroundings are not what its author has at home. */
@Timeout(300)
class CommandLineTest {
  private static final String[] SMALL = {
    "migrate", "--guest", "process", "--ram", "32MiB", "--json"
  };

  /** So slow that it does not end before somebody ends it. */
  private static final String[] SLOW = {
    "migrate",
    "--guest",
    "process",
    "--ram",
    "64MiB",
    "--dirty-rate",
    "max",
    "--max-bandwidth",
    "20MiB/s",
    "--downtime-limit",
    "1ms"
  };

  private static JsonObject onlyObject(Program.Ended ended) {
    List<String> lines = ended.output().lines().toList();
    assertEquals(1, lines.size(), ended.output() + ended.errors());
    return Json.object(lines.getFirst());
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "-Xlog:gc*,safepoint*",
        "-XX:StartFlightRecording",
        "-agentlib:jdwp=transport=dt_socket,server=y,suspend=n,address=127.0.0.1:0",
        "-Dcom.sun.management.jmxremote.port=0 -Dcom.sun.management.jmxremote.ssl=false"
            + " -Dcom.sun.management.jmxremote.authenticate=false -verbose:class"
      })
  void aJvmThatPrintsDoesNotDisturbAMigration(String options, @TempDir Path folder)
      throws Exception {
    MigrateCommandTest.assumePagemapScan();
    List<String> java = new ArrayList<>(List.of(options.split(" ")));
    java.add("-Duser.dir=" + folder);
    java.add("-Djava.io.tmpdir=" + folder);
    try (Program program = Program.startWith(java, "", SMALL)) {
      Program.Ended ended = program.end();
      assertEquals(0, ended.status(), ended.errors());
      assertTrue(
          ended.output().lines().anyMatch(line -> line.contains("\"verified\":true")),
          ended.output());
    }
  }

  @ParameterizedTest
  @ValueSource(strings = {"JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS"})
  void noMoreDoesOneThatItsEnvironmentMakesPrint(String variable) throws Exception {
    MigrateCommandTest.assumePagemapScan();
    List<String> command = new ArrayList<>(List.of("env", variable + "=-Xlog:gc*"));
    command.addAll(Program.commandLine(List.of(), SMALL));
    try (Program program = Program.command(command)) {
      Program.Ended ended = program.end();
      assertEquals(0, ended.status(), ended.errors());
    }
  }

  @ParameterizedTest
  @ValueSource(strings = {"its receiver starts", "round  1"})
  void aMigrationThatIsKilledLeavesNoReceiver(String moment, @TempDir Path folder)
      throws Exception {
    MigrateCommandTest.assumePagemapScan();
    try (Program program = Program.startWith(List.of("-Djava.io.tmpdir=" + folder), "", SLOW)) {
      if (moment.startsWith("round")) {
        program.awaitLine(moment);
      }
      long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(60);
      while (program.children().isEmpty()) {
        assertTrue(System.nanoTime() < deadline && program.isAlive(), "no receiver was started");
        Thread.sleep(1);
      }
      List<ProcessHandle> children = program.children();
      program.kill();
      try {
        for (ProcessHandle child : children) {
          child.onExit().get(60, TimeUnit.SECONDS);
        }
      } finally {
        children.forEach(ProcessHandle::destroyForcibly);
      }
      try (Stream<Path> left = Files.list(folder)) {
        assertEquals(List.of(), left.filter(f -> !f.endsWith("hsperfdata_root")).toList());
      }
    }
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "1 migrate --guest process --ram 32MiB --to tcp:127.0.0.1:1",
        "1 migrate --ram 4000GiB",
        "2 migrate --ram 1.5GiB",
        "2 migrate --guest iommufd",
        "2 migrate --to tcp:192.0.2.1:4444",
        "1 migrate --guest process --ram 32MiB --max-bandwidth 1MiB --time-limit 1ms",
        "2 receive",
        "2 explain --device nosuch",
        "2 explain --viommu=99"
      })
  void aFailureIsOneJsonObjectToo(String line) throws Exception {
    MigrateCommandTest.assumePagemapScan();
    int status = Integer.parseInt(line.substring(0, 1));
    try (Program program = Program.start((line.substring(2) + " --json").split(" "))) {
      Program.Ended ended = program.end();
      ended.assertFails(status, "");
      JsonObject object = onlyObject(ended);
      assertEquals("failed", object.get("status").getAsString());
      assertTrue(
          ended.errors().contains(object.get("reason").getAsString()),
          object + " and " + ended.errors());
    }
  }

  @Test
  void aSignalIsOneJsonObjectToo() throws Exception {
    MigrateCommandTest.assumePagemapScan();
    List<String> arguments = new ArrayList<>(List.of(SLOW));
    arguments.add("--json");
    try (Program program = Program.start(arguments.toArray(String[]::new))) {
      program.awaitError("round  1");
      program.signal("TERM");
      Program.Ended ended = program.end();
      assertEquals(128 + 15, ended.status());
      JsonObject object = onlyObject(ended);
      assertEquals("cancelled", object.get("status").getAsString());
      assertFalse(object.get("verified").getAsBoolean());
    }
  }

  @ParameterizedTest
  @ValueSource(strings = {"probe", "probe --json", "--help", "explain", "migrate --help", "jmh -l"})
  void aFullDeviceIsAFailure(String line) throws Exception {
    List<String> command = new ArrayList<>(List.of("sh", "-c", "exec \"$@\" > /dev/full", "sh"));
    command.addAll(Program.commandLine(List.of(), line.split(" ")));
    try (Program program = Program.command(command)) {
      program.end().assertFails(1, "output");
    }
  }

  @Test
  void aReaderThatIsGoneIsAFailure() throws Exception {
    List<String> command =
        new ArrayList<>(List.of("bash", "-c", "\"$@\" > >(exit 0); exit $?", "sh"));
    command.addAll(Program.commandLine(List.of(), "probe"));
    try (Program program = Program.command(command)) {
      program.end().assertFails(1, "output");
    }
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "-Duser.language=ar -Duser.country=EG -Duser.extensions=u-nu-arab",
        "-Duser.language=th -Duser.country=TH -Duser.extensions=u-nu-thai",
        "-Duser.language=mr -Duser.country=IN -Duser.extensions=u-nu-deva"
      })
  void digitsAreAsciiInEveryLocale(String locale) throws Exception {
    MigrateCommandTest.assumePagemapScan();
    for (String line :
        List.of(
            "migrate --guest process --ram 32MiB --dirty-rate max --max-bandwidth 16MiB --max-rounds 1",
            "migrate --ram 4000GiB",
            "migrate --ram 5000001 --guest process",
            "explain --type1 --ram 9T --device vf0,migration=on,has=stop_copy",
            "explain --viommu=99",
            "migrate --max-rounds 0",
            "probe",
            "migrate --help")) {
      try (Program program = Program.startWith(List.of(locale.split(" ")), "", line.split(" "))) {
        Program.Ended ended = program.end();
        String all = ended.output() + ended.errors();
        assertFalse(
            all.codePoints().anyMatch(c -> Character.isDigit(c) && (c < '0' || c > '9')),
            line + ": " + all);
      }
    }
  }

  /** With the terminal's own width, in a terminal, as script(1) makes one. */
  @Test
  void theProgressLineFitsTheTerminalAndEndsBeforeAMessage() throws Exception {
    MigrateCommandTest.assumePagemapScan();
    assumeTrue(Files.isExecutable(Path.of("/usr/bin/script")), "needs script(1)");
    String java =
        Program.commandLine(
                List.of(),
                "migrate",
                "--guest",
                "process",
                "--ram",
                "32MiB",
                "--dirty-rate",
                "max",
                "--max-bandwidth",
                "16MiB",
                "--max-rounds",
                "1")
            .stream()
            .map(word -> "'" + word + "'")
            .collect(Collectors.joining(" "));
    try (Program program =
        Program.command(
            List.of("script", "-qefc", "stty cols 60; export COLUMNS=200; " + java, "/dev/null"))) {
      Program.Ended ended = program.end();
      assertEquals(1, ended.status(), ended.output());
      // A carriage return ends a line for who reads it here. The round's last one is printed whole.
      List<Integer> widths =
          ended
              .output()
              .lines()
              .filter(line -> line.startsWith("round"))
              .map(line -> line.replace("\033[K", "").length())
              .toList();
      assertTrue(widths.size() > 3, ended.output());
      assertEquals(1, widths.stream().filter(width -> width >= 60).count(), ended.output());
      assertTrue(
          ended.output().lines().anyMatch(line -> line.startsWith("tidemark: ")), ended.output());
    }
  }
}
