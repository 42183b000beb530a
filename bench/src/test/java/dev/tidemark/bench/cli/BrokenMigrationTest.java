package dev.tidemark.bench.cli;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.gson.JsonObject;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.concurrent.TimeUnit;
import java.util.stream.Stream;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/**
 * Real processes that are killed, stopped and cut off at random moments: a guest runs at one place
 * or none, each side says so, nothing stays behind, and the next migration verifies.
 *
 * <p>{@code -Dtidemark.seed} repeats a run, {@code -Dtidemark.effort=30} makes it 300 long.
 */
class BrokenMigrationTest {
  private static final int TIMES = 10 * Integer.getInteger("tidemark.effort", 1);

  /** What happens to a migration. */
  private enum Accident {
    SOURCE_KILLED,
    RECEIVER_KILLED,
    SOURCE_STOPPED_FOR_A_WHILE,
    RECEIVER_STOPPED_FOR_A_WHILE,
    CABLE_CUT,
    CONNECTION_RESET
  }

  @TempDir private Path folder;

  @BeforeEach
  void assumeAGuest() {
    MigrateCommandTest.assumePagemapScan();
  }

  private Program start(String... arguments) throws Exception {
    return Program.startWith(
        List.of("-Djava.io.tmpdir=" + folder, "-Dtidemark.vector=forbid"), "", arguments);
  }

  private Program migrate(String... more) throws Exception {
    List<String> arguments =
        new ArrayList<>(
            List.of(
                "migrate",
                "--guest",
                "process",
                "--ram",
                "24MiB",
                "--dirty-rate",
                "2000",
                "--max-bandwidth",
                "24MiB/s",
                "--json"));
    arguments.addAll(List.of(more));
    return start(arguments.toArray(String[]::new));
  }

  private static void assertVerified(Program.Ended ended, String what) {
    assertEquals(0, ended.status(), what + ": " + ended.errors());
    assertTrue(Json.object(ended.lastLine()).get("verified").getAsBoolean(), what);
  }

  private void assertNothingLeft(String what) throws Exception {
    try (Stream<Path> left = Files.list(folder)) {
      assertEquals(
          List.of(), left.filter(f -> !f.toString().contains("hsperfdata")).toList(), what);
    }
  }

  private static void pause(Program program, Random random) throws Exception {
    program.signal("STOP");
    Thread.sleep(random.nextInt(2000));
    program.signal("CONT");
  }

  /** One object, and one line for people, unless all is well. */
  private static JsonObject object(Program.Ended ended, String what) {
    assertEquals(1, ended.output().lines().count(), what + ": " + ended.output());
    if (ended.status() != 0) {
      ended.assertFails(1, "");
    }
    return Json.object(ended.lastLine());
  }

  @Test
  void leavesOneGuestAndNothingElse() throws Exception {
    long seed = Long.getLong("tidemark.seed", System.nanoTime());
    Random random = new Random(seed);
    long whole = System.nanoTime();
    try (Program program = migrate()) {
      assertVerified(program.end(), "undisturbed");
    }
    int millis = (int) Math.min(20_000, (System.nanoTime() - whole) / 1_000_000);
    int[] ends = new int[4];
    for (int i = 0; i < TIMES; i++) {
      Accident accident = Accident.values()[random.nextInt(Accident.values().length)];
      long when = random.nextInt(millis * 3 / 4);
      String what =
          "-Dtidemark.seed=" + seed + ", " + i + ": " + accident + " after " + when + " ms";
      ends[disturb(accident, when, random, what)]++;
      assertNothingLeft(what);
      try (Program program = migrate()) {
        assertVerified(program.end(), "after " + what);
      }
      assertNothingLeft("after " + what);
    }
    System.out.printf(
        "%d accidents in migrations of %d ms: %d verified, %d failed, %d sources killed%n",
        TIMES, millis, ends[0], ends[1], ends[2]);
  }

  /** Returns 0 if the migration went well, 1 if it failed, 2 if the source was killed. */
  private int disturb(Accident accident, long when, Random random, String what) throws Exception {
    try (Program receiver = start("receive", "--listen", "tcp:127.0.0.1:0", "--json")) {
      String address =
          Json.object(receiver.awaitLine("{\"listening\"")).get("listening").getAsString();
      boolean cut = accident == Accident.CABLE_CUT || accident == Accident.CONNECTION_RESET;
      // Half of the cuts by time, half by bytes.
      long bytes = cut && random.nextBoolean() ? random.nextInt(26 << 20) : Long.MAX_VALUE;
      try (Cable cable = new Cable(address, bytes, accident == Accident.CONNECTION_RESET);
          Program source = migrate("--to", cut ? cable.address() : address)) {
        Thread.sleep(when);
        switch (accident) {
          case SOURCE_KILLED -> source.kill();
          case RECEIVER_KILLED -> receiver.kill();
          case SOURCE_STOPPED_FOR_A_WHILE -> pause(source, random);
          case RECEIVER_STOPPED_FOR_A_WHILE -> pause(receiver, random);
          default -> {
            if (bytes == Long.MAX_VALUE) {
              cable.cut();
            }
          }
        }
        Program.Ended sent = source.end();
        // A receiver that has heard nobody waits on.
        boolean waits = !receiver.said("{\"receiving\"") && accident != Accident.RECEIVER_KILLED;
        if (waits) {
          Thread.sleep(100);
          waits = !receiver.said("{\"receiving\"");
        }
        if (waits) {
          receiver.signal("TERM");
        }
        Program.Ended received = receiver.end();
        boolean ranThere = received.output().contains("{\"running\":true}");
        if (accident == Accident.SOURCE_KILLED && sent.status() == 128 + 9) {
          if (ranThere) {
            assertEquals(0, received.status(), what + ": " + received.errors());
          } else if (!waits) {
            received.assertFails(1, "");
          }
          return 2;
        }
        JsonObject end = object(sent, what);
        String status = end.get("status").getAsString();
        if (status.equals("failed") || status.equals("cancelled")) {
          assertFalse(ranThere, what + ": two guests: " + sent + " and " + received);
        }
        if (status.equals("completed") && accident != Accident.RECEIVER_KILLED) {
          assertTrue(ranThere, what + ": no guest: " + sent + " and " + received);
        }
        if (ranThere && accident != Accident.RECEIVER_KILLED) {
          assertEquals(0, received.status(), what + ": " + received.errors());
        }
        assertEquals(sent.status() == 0, end.get("verified").getAsBoolean(), what);
        return sent.status() == 0 ? 0 : 1;
      }
    }
  }

  @Test
  void withAReceiverOfItsOwnToo() throws Exception {
    long seed = Long.getLong("tidemark.seed", System.nanoTime());
    Random random = new Random(seed);
    for (int i = 0; i < TIMES; i++) {
      long when = random.nextInt(4000);
      boolean receiver = random.nextBoolean();
      boolean kill = random.nextBoolean();
      String what =
          "-Dtidemark.seed=%d, %d: %s %s after %d ms"
              .formatted(
                  seed,
                  i,
                  receiver ? "its receiver" : "the migration",
                  kill ? "killed" : "stopped",
                  when);
      try (Program program = migrate()) {
        Thread.sleep(when);
        List<ProcessHandle> children = program.children();
        if (!receiver) {
          if (kill) {
            program.kill();
          } else {
            pause(program, random);
          }
        } else if (!children.isEmpty()) {
          if (kill) {
            children.getFirst().destroyForcibly();
          } else {
            Program.signal(children.getFirst().pid(), "STOP");
            Thread.sleep(random.nextInt(2000));
            Program.signal(children.getFirst().pid(), "CONT");
          }
        }
        Program.Ended ended = program.end();
        for (ProcessHandle child : children) {
          child.onExit().get(120, TimeUnit.SECONDS);
        }
        if (receiver || !kill) {
          assertEquals(
              ended.status() == 0, object(ended, what).get("verified").getAsBoolean(), what);
          if (!kill) {
            assertEquals(0, ended.status(), what + ": " + ended.errors());
          }
        }
      }
      assertNothingLeft(what);
      try (Program program = migrate()) {
        assertVerified(program.end(), "after " + what);
      }
    }
  }
}
