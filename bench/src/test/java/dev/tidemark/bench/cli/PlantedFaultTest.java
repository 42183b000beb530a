package dev.tidemark.bench.cli;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.tidemark.bench.lab.FaultyClasses;
import dev.tidemark.bench.lab.FaultyClasses.Patch;
import java.io.IOException;
import java.nio.file.Path;
import java.util.List;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/**
 * A lost bit is noticed. Each fault is a patch of one source file of the engine, compiled into a
 * folder of its own in front of the class path, so that nothing of it is in what is shipped; then a
 * whole migration must fail, because the guest or the digest found memory that is wrong.
 *
 * <p>The guest has so little memory, and the connection is so slow, that the guest writes every
 * page several times in each round; with a dirty ring it has less than the ring has entries,
 * because a ring that is emptied all the time hides what was forgotten before. A fault that is a
 * race may go well on a busy machine: it has {@link #CHANCES} migrations to be noticed in.
 */
@Timeout(300)
class PlantedFaultTest {
  private static final int CHANCES = 3;

  /** No fault is in a vector's code, and warming that up takes longer than a migration here. */
  private static final List<String> SCALAR = List.of("-Dtidemark.vector=forbid");

  private static final String SOURCES = "engine/src/main/java/dev/tidemark/engine/";

  /** What is done wrong, and where the guest's writes go through it. */
  enum Fault {
    NONE("log/FillPlane.java", "", "", "plain", "32MiB"),
    A_RUN_OF_THE_LAST_EPOCH_DROPPED(
        "migrate/OutgoingMigration.java",
        "for (int run = 0; run < found; run++) {",
        "for (int run = guestStopped ? 1 : 0; run < found; run++) {",
        "plain",
        "32MiB"),
    MANUAL_CLEARED_AFTER_THE_COPY(
        "source/KvmSlotLogSource.java",
        """
              MemorySegment answer = answers[i];
        """,
        """
              MemorySegment answer = answers[i];
              if (manual) {
                vm.clearDirtyLog(slot.slot(), 0, slot.pages(), answer);
              }
        """,
        "manual",
        "32MiB"),
    RING_RESET_AFTER_THE_COPY(
        "source/KvmDirtyRingSource.java",
        """
              for (KvmDirtyRing ring : rings) {
                try {
                  int taken = ring.harvest(sink);
                  unreset += taken;
                  if (taken > 0) {
                    addCandidate();
                  }
                } catch (RuntimeException | Error e) {
                  failure = Unwind.join(failure, e);
                }
              }
              if (protect || failure != null) {
                failure = takeBack(failure);
              }
        """,
        """
              if (protect || failure != null) {
                failure = takeBack(failure);
              }
              for (KvmDirtyRing ring : rings) {
                try {
                  int taken = ring.harvest(sink);
                  unreset += taken;
                  if (taken > 0) {
                    addCandidate();
                  }
                } catch (RuntimeException | Error e) {
                  failure = Unwind.join(failure, e);
                }
              }
        """,
        "ring",
        "16MiB"),
    AN_ABORT_THAT_FORGETS_THE_LAST_WORD(
        "log/RamBlockLog.java",
        "ops.orLines(plane.map, send, planeWords, lines);",
        "ops.orLines(plane.map, send, planeWords - 1, lines);",
        "plain",
        "32MiB"),
    A_TAIL_ONE_BIT_SHORT(
        "log/FillPlane.java",
        "return ops.orCount(map, page, source, sourceBit, count);",
        "return ops.orCount(map, page, source, sourceBit, count - 1);",
        "plain",
        "32MiB"),
    MARKS_LEFT_OUT_OF_THE_LAST_SYNC(
        "source/DirtyTracker.java",
        "      log.mergeMarks();",
        "      if (log.counters().harvests() < 2) {\n        log.mergeMarks();\n      }",
        "plain",
        "32MiB"),
    PAGES_LEFT_OUT_OF_A_SCAN(
        "source/PagemapScanSource.java",
        "for (int i = 0; i < regions; i++) {",
        "for (int i = 1; i < regions; i++) {",
        "process",
        "32MiB");

    private final String file;
    private final String right;
    private final String wrong;
    private final String tracking;
    private final String ram;

    Fault(String file, String right, String wrong, String tracking, String ram) {
      this.file = file;
      this.right = right;
      this.wrong = wrong;
      this.tracking = tracking;
      this.ram = ram;
    }
  }

  @ParameterizedTest
  @EnumSource(Fault.class)
  void isNoticed(Fault fault, @TempDir Path folder) throws Exception {
    if (fault.tracking.equals("process")) {
      MigrateCommandTest.assumePagemapScan();
    } else {
      MigrateCommandTest.assumeKvm();
    }
    plant(fault, folder);
    if (fault == Fault.NONE) {
      Program.Ended ended = migrate(fault, folder);
      assertEquals(0, ended.status(), ended.errors());
      return;
    }
    Program.Ended ended = migrate(fault, folder);
    for (int chance = 1; ended.status() == 0 && chance < CHANCES; chance++) {
      ended = migrate(fault, folder);
    }
    assertEquals(1, ended.status(), "the fault went unnoticed: " + ended.output());
    assertFalse(Json.object(ended.lastLine()).get("verified").getAsBoolean());
    assertTrue(
        ended.errors().contains("digest") || ended.errors().contains("page "),
        "it failed for another reason: " + ended.errors());
  }

  private static Program.Ended migrate(Fault fault, Path folder) throws Exception {
    boolean process = fault.tracking.equals("process");
    try (Program program =
        Program.startWith(
            SCALAR,
            folder.toString(),
            "migrate",
            "--guest",
            process ? "process" : "kvm",
            "--tracking",
            process ? "auto" : fault.tracking,
            "--ram",
            fault.ram,
            "--dirty-rate",
            "max",
            "--max-bandwidth",
            "32MiB/s",
            "--max-rounds",
            "2",
            "--at-limit",
            "stop_and_copy",
            "--json")) {
      return program.end();
    }
  }

  private static void plant(Fault fault, Path folder) throws IOException {
    FaultyClasses.compile(
        List.of(new Patch(SOURCES + fault.file, fault.right, fault.wrong)), folder);
  }
}
