package dev.tidemark.bench.cli;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import com.google.gson.JsonObject;
import dev.tidemark.bench.guest.KvmGuest;
import dev.tidemark.ffm.userfaultfd.Pagemap;
import dev.tidemark.ffm.userfaultfd.Userfaultfd;
import dev.tidemark.ffm.userfaultfd.UserfaultfdUapi;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.Set;
import java.util.jar.Attributes;
import java.util.jar.JarOutputStream;
import java.util.jar.Manifest;
import java.util.stream.Collectors;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Whole migrations between two processes, as a user starts them. */
@Timeout(300)
class MigrateCommandTest {
  static void assumeKvm() {
    String missing = KvmGuest.missing().orElse(null);
    assumeTrue(missing == null, missing);
  }

  static void assumePagemapScan() {
    String missing =
        Userfaultfd.probe()
            .missing(UserfaultfdUapi.UFFD_FEATURE_WP_ASYNC)
            .or(Pagemap::missing)
            .orElse(null);
    assumeTrue(missing == null, missing);
  }

  private static JsonObject completed(Program.Ended ended) {
    assertEquals(0, ended.status(), ended.errors());
    JsonObject summary = Json.object(ended.lastLine());
    assertEquals(
        Set.of(
            "status",
            "reason",
            "guest",
            "sources",
            "bitmapOperations",
            "rounds",
            "ramBytes",
            "pagesSent",
            "zeroPages",
            "bytesSent",
            "totalMillis",
            "firstPageMillis",
            "downtimeMillis",
            "digestMillis",
            "cpuMillis",
            "verified",
            "guestPagesPerSecondBefore",
            "guestNanosPerPageBefore",
            "guestLongestStallMillisBefore",
            "guestPagesPerSecond",
            "guestNanosPerPage",
            "guestLongestStallMillis",
            "guestSlowdown",
            "guestRounds",
            "guestPagesPerSecondAfter",
            "guestLongestStallMillisAfter"),
        summary.keySet());
    assertEquals("completed", summary.get("status").getAsString());
    assertTrue(summary.get("verified").getAsBoolean());
    assertTrue(summary.get("rounds").getAsInt() > 1);
    assertTrue(summary.get("downtimeMillis").getAsDouble() > 0);
    return summary;
  }

  private static JsonObject migrate(String... arguments) throws Exception {
    try (Program program = Program.start(arguments)) {
      return completed(program.end());
    }
  }

  @ParameterizedTest
  @ValueSource(strings = {"plain", "manual", "ring"})
  void aKvmGuestThatWritesAsFastAsItCanArrivesWhole(String tracking) throws Exception {
    assumeKvm();
    JsonObject summary =
        migrate(
            "migrate",
            "--guest",
            "kvm",
            "--ram",
            "128MiB",
            "--dirty-rate",
            "max",
            "--tracking",
            tracking,
            "--max-rounds",
            "5",
            "--at-limit",
            "stop_and_copy",
            "--json");
    assertEquals("[\"kvm-" + tracking + "\"]", summary.get("sources").toString());
    assertEquals(128L << 20, summary.get("ramBytes").getAsLong());
  }

  @Test
  void aProcessGuestThatWritesAsFastAsItCanArrivesWhole() throws Exception {
    assumePagemapScan();
    JsonObject summary =
        migrate(
            "migrate",
            "--guest",
            "process",
            "--ram",
            "128MiB",
            "--dirty-rate",
            "max",
            "--max-rounds",
            "5",
            "--at-limit",
            "stop_and_copy",
            "--json");
    assertEquals("[\"pagemap-scan\"]", summary.get("sources").toString());
  }

  @ParameterizedTest
  @ValueSource(strings = {"10000", "50000"})
  void theDecisionToStopIsWithinTheDowntimeLimit(String rate) throws Exception {
    assumeKvm();
    try (Program program =
        Program.start(
            "migrate",
            "--guest",
            "kvm",
            "--ram",
            "256MiB",
            "--dirty-rate",
            rate,
            "--downtime-limit",
            "1s",
            "--json")) {
      Program.Ended ended = program.end();
      JsonObject summary = completed(ended);
      // The progress lines say what was expected when the guest was stopped.
      String stop =
          ended
              .errors()
              .lines()
              .filter(l -> l.startsWith("guest stopped"))
              .findFirst()
              .orElseThrow();
      long expected = Long.parseLong(stop.replaceAll(".*expected downtime (\\d+) ms.*", "$1"));
      assertTrue(expected <= 1000, stop);
      System.out.println(
          "dirty rate " + rate + ": downtime " + summary.get("downtimeMillis") + " ms, " + stop);
    }
  }

  @Test
  void belowTheDirtyRateItEndsByItsOwnLimitAndTheGuestGoesOn() throws Exception {
    assumeKvm();
    try (Program program =
        Program.start(
            "migrate",
            "--guest",
            "kvm",
            "--ram",
            "64MiB",
            "--dirty-rate",
            "50000",
            "--max-bandwidth",
            "30MiB/s",
            "--max-rounds",
            "3",
            "--json")) {
      Program.Ended ended = program.end();
      ended.assertFails(1, "after 3 rounds there are still ");
      ended.assertFails(1, "the guest goes on running at the source");
      JsonObject summary = Json.object(ended.lastLine());
      assertEquals("failed", summary.get("status").getAsString());
      assertFalse(summary.get("verified").getAsBoolean());
      assertTrue(summary.get("downtimeMillis").isJsonNull());
    }
  }

  @Test
  void belowTheDirtyRateItStopsTheGuestIfAskedTo() throws Exception {
    assumeKvm();
    JsonObject summary =
        migrate(
            "migrate",
            "--guest",
            "kvm",
            "--ram",
            "64MiB",
            "--dirty-rate",
            "50000",
            "--max-bandwidth",
            "30MiB/s",
            "--max-rounds",
            "2",
            "--at-limit",
            "stop_and_copy",
            "--json");
    assertEquals(3, summary.get("rounds").getAsInt());
  }

  @Test
  void theJarAloneHasWhatItNeedsAndGivesItToItsReceiver(@TempDir Path folder) throws Exception {
    assumePagemapScan();
    Path jar = folder.resolve("program.jar");
    Manifest manifest = new Manifest();
    Attributes attributes = manifest.getMainAttributes();
    attributes.put(Attributes.Name.MANIFEST_VERSION, "1.0");
    attributes.put(Attributes.Name.MAIN_CLASS, "dev.tidemark.bench.Main");
    attributes.putValue("Enable-Native-Access", "ALL-UNNAMED");
    attributes.put(
        Attributes.Name.CLASS_PATH,
        Arrays.stream(System.getProperty("java.class.path").split(":"))
            .map(entry -> Path.of(entry).toUri().toString())
            .collect(Collectors.joining(" ")));
    new JarOutputStream(Files.newOutputStream(jar), manifest).close();
    List<String> command =
        List.of(
            Program.java(),
            "-jar",
            jar.toString(),
            "migrate",
            "--guest",
            "process",
            "--ram",
            "32MiB",
            "--json");
    try (Program program = Program.command(command)) {
      completed(program.end());
    }
  }

  @Test
  void aReceiverThatIsStartedByHandWorksToo() throws Exception {
    assumePagemapScan();
    try (Program receiver = Program.start("receive", "--listen", "tcp:127.0.0.1:0", "--json")) {
      String address = Json.object(receiver.firstLine()).get("listening").getAsString();
      migrate("migrate", "--guest", "process", "--ram", "32MiB", "--to", address, "--json");
      Program.Ended ended = receiver.end();
      assertEquals(0, ended.status(), ended.errors());
      assertEquals(
          List.of(
              "{\"listening\":\"" + address + "\"}",
              "{\"receiving\":true}",
              "{\"running\":true}",
              "{\"verified\":true,\"status\":\"completed\",\"reason\":null}"),
          ended.output().lines().toList());
    }
  }

  @ParameterizedTest
  @ValueSource(strings = {"round  1", "round  2"})
  void aReceiverThatIsKilledInARoundLeavesTheGuestRunning(String round) throws Exception {
    assumePagemapScan();
    boolean first = round.equals("round  1");
    try (Program receiver = Program.start("receive", "--listen", "tcp:127.0.0.1:0", "--json")) {
      String address = Json.object(receiver.firstLine()).get("listening").getAsString();
      try (Program source =
          Program.start(
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
              "1ms",
              "--to",
              address)) {
        if (first) {
          receiver.awaitLine("{\"receiving\"");
        } else {
          source.awaitLine("round  1");
        }
        receiver.kill();
        // Killed before the first round it may not even have answered.
        source.end().assertFails(1, first ? "" : "the guest goes on running at the source");
      }
    }
  }

  @Test
  void aSourceThatIsKilledLeavesNoGuestAtTheReceiver() throws Exception {
    assumePagemapScan();
    try (Program receiver = Program.start("receive", "--listen", "tcp:127.0.0.1:0", "--json")) {
      String address = Json.object(receiver.firstLine()).get("listening").getAsString();
      try (Program source =
          Program.start(
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
              "1ms",
              "--to",
              address)) {
        source.awaitLine("round  1");
        source.kill();
        Program.Ended ended = receiver.end();
        ended.assertFails(1, "stream");
        assertFalse(ended.output().contains("running"), ended.output());
      }
    }
  }

  @Test
  void aSignalToEndCancels() throws Exception {
    assumePagemapScan();
    try (Program source =
        Program.start(
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
            "1ms")) {
      source.awaitLine("round  1");
      // Not Ctrl-C's own signal, which is ignored where a test runs in the background.
      source.signal("TERM");
      Program.Ended ended = source.end();
      assertTrue(ended.errors().contains("cancelled"), ended.errors());
      assertEquals(128 + 15, ended.status());
      assertFalse(ended.errors().contains("\tat "));
    }
  }

  @Test
  void aPortInUseIsOneLine() throws Exception {
    try (Program receiver = Program.start("receive", "--listen", "tcp:127.0.0.1:0", "--json")) {
      String address = Json.object(receiver.firstLine()).get("listening").getAsString();
      try (Program second = Program.start("receive", "--listen", address)) {
        second.end().assertFails(1, "EADDRINUSE");
      }
    }
  }

  @Test
  void nobodyListeningIsOneLine() throws Exception {
    try (Program program =
        Program.start(
            "migrate", "--guest", "process", "--ram", "32MiB", "--to", "tcp:127.0.0.1:1")) {
      assumePagemapScan();
      program.end().assertFails(1, "ECONNREFUSED");
    }
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "migrate --ram 1.5GiB",
        "migrate --ram 5000001 --guest process",
        "migrate --dirty-rate -1",
        "migrate --dirty-rate 0",
        "migrate --dirty-rate quick",
        "migrate --downtime-limit 0ms",
        "migrate --downtime-limit soon",
        "migrate --max-rounds 0",
        "migrate --tracking some",
        "migrate --guest process --tracking ring",
        "migrate --guest iommufd --tracking ring",
        "migrate --to tcp:192.0.2.1:4444",
        "migrate --to 4444",
        "migrate --ram 99999999999999999999",
        "receive",
        "receive --listen tcp:127.0.0.1:70000",
        "receive --listen unix:",
        "receive --parent /tmp/file",
        "receive --listen tcp:127.0.0.1:0 --max-ram some",
        "explain --device ,",
        "explain --device vf0,",
        "explain --device vf0,has=+",
        "explain --device nosuch",
        "explain --viommu=99",
        "frobnicate",
        ""
      })
  void wrongUsageIsStatusTwoAndOneLine(String line) throws Exception {
    String[] arguments = line.isEmpty() ? new String[0] : line.split(" ");
    try (Program program = Program.start(arguments)) {
      program.end().assertFails(2, "");
    }
  }

  @ParameterizedTest
  @ValueSource(strings = {"iommufd", "dmalog", "type1"})
  void aGuestOfTheLabElsewhereIsOneLineThatSaysWhere(String guest) throws Exception {
    try (Program program = Program.start("migrate", "--guest", guest)) {
      program.end().assertFails(2, "bench/lab/shell mock");
    }
  }

  @Test
  void moreMemoryThanThereIsIsOneLine() throws Exception {
    try (Program program = Program.start("migrate", "--ram", "4000GiB")) {
      program.end().assertFails(1, "are available on this host");
    }
  }

  @Test
  void withoutNativeAccessTheFlagIsNamed() throws Exception {
    List<String> command =
        List.of(
            Program.java(),
            "--illegal-native-access=deny",
            "-cp",
            System.getProperty("java.class.path"),
            "dev.tidemark.bench.Main",
            "probe");
    try (Program program = Program.command(command)) {
      program.end().assertFails(1, "--enable-native-access=ALL-UNNAMED");
    }
  }

  @Test
  void withoutTheIncubatorModuleItRunsScalarAndSaysSo() throws Exception {
    List<String> command =
        List.of(
            Program.java(),
            "--enable-native-access=ALL-UNNAMED",
            "-cp",
            System.getProperty("java.class.path"),
            "dev.tidemark.bench.Main",
            "probe",
            "--json");
    try (Program program = Program.command(command)) {
      Program.Ended ended = program.end();
      assertEquals(0, ended.status());
      String operations = Json.object(ended.lastLine()).get("bitmapOperations").getAsString();
      assertTrue(operations.startsWith("scalar: no module jdk.incubator.vector"), operations);
      assertEquals(1, ended.errors().lines().filter(l -> l.contains("bitmap operations")).count());
    }
  }

  @Test
  void probeSaysWhatThereIsAndWhyNot() throws Exception {
    try (Program program = Program.start("probe", "--json")) {
      JsonObject host = Json.object(program.end().lastLine());
      for (String name :
          List.of(
              "kvm",
              "kvmManualProtect",
              "kvmDirtyRing",
              "userfaultfd",
              "userfaultfdWpAsync",
              "pagemapScan",
              "iommufd",
              "vfio")) {
        JsonObject finding = host.getAsJsonObject(name);
        assertTrue(finding.has("available"), name);
        assertFalse(finding.get("detail").getAsString().isEmpty(), name);
      }
      assertEquals(
          KvmGuest.missing().isEmpty(),
          host.getAsJsonObject("kvm").get("available").getAsBoolean());
    }
  }
}
