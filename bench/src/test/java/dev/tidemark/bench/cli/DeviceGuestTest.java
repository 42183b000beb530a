package dev.tidemark.bench.cli;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.gson.JsonObject;
import dev.tidemark.bench.lab.DeviceFault;
import java.nio.file.Files;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.ValueSource;

/**
 * Guests whose memory only devices write, while mappings come and go all the time, are migrated
 * whole by the command line; and what can be done wrong with them is noticed. In the lab.
 */
@Tag("lab-mock")
@Timeout(300)
class DeviceGuestTest {
  /** In how many migrations a fault has to be noticed once: some are races, which may go well. */
  private static final int CHANCES = 3;

  /** Little memory, and a connection so slow that the guest writes much of it in each round. */
  private static String[] migrate(String guest, String... more) {
    String[] all = {
      "migrate",
      "--guest",
      guest,
      "--ram",
      "6MiB",
      "--dirty-rate",
      "500",
      "--max-bandwidth",
      "4MiB/s",
      "--downtime-limit",
      "1ms",
      "--max-rounds",
      "3",
      "--at-limit",
      "stop_and_copy",
      "--json"
    };
    String[] arguments = new String[all.length + more.length];
    System.arraycopy(all, 0, arguments, 0, all.length);
    System.arraycopy(more, 0, arguments, all.length, more.length);
    return arguments;
  }

  private static JsonObject completed(String guest, String line) {
    JsonObject summary = Json.object(line);
    assertTrue(summary.get("verified").getAsBoolean(), line);
    assertEquals("completed", summary.get("status").getAsString());
    assertEquals(guest, summary.get("guest").getAsString());
    assertEquals(
        "[\"" + (guest.equals("dmalog") ? "device-log" : guest) + "\"]",
        summary.get("sources").toString());
    assertTrue(summary.get("unmaps").getAsLong() > 0, "mappings came and went: " + line);
    return summary;
  }

  @ParameterizedTest
  @ValueSource(strings = {"iommufd", "dmalog"})
  void aGuestThatOnlyDevicesWriteArrivesWhole(String guest) throws Exception {
    long start = System.nanoTime();
    try (Program program = Program.start(migrate(guest))) {
      Program.Ended ended = program.end();
      assertEquals(0, ended.status(), ended.errors());
      System.out.printf(
          "lab: two processes in %.1f s: %s%n",
          (System.nanoTime() - start) / 1e9, ended.lastLine());
      JsonObject summary = completed(guest, ended.lastLine());
      if (guest.equals("dmalog")) {
        assertTrue(summary.get("preCopyBytes").getAsLong() > 0, "state, while the guest ran");
        assertTrue(summary.get("stopCopyBytes").getAsLong() > 0, "the rest of it");
      }
    }
  }

  @ParameterizedTest
  @EnumSource(DeviceFault.class)
  void isNoticedIfItIsWrong(DeviceFault fault) throws Exception {
    assertTrue(Files.isDirectory(fault.folder()), fault.folder() + ": the lab's launcher makes it");
    InProcess.Ended ended = migrate(fault);
    if (!fault.isWrong()) {
      assertEquals(0, ended.status(), ended.errors());
      completed(fault.guest(), ended.summary());
      return;
    }
    for (int chance = 1; ended.status() == 0 && chance < CHANCES; chance++) {
      ended = migrate(fault);
    }
    assertEquals(1, ended.status(), "the fault went unnoticed: " + ended.summary());
    assertFalse(Json.object(ended.summary()).get("verified").getAsBoolean());
    assertTrue(
        ended.errors().contains("digest") || ended.errors().contains("page "),
        "it failed for another reason: " + ended.errors());
  }

  private static InProcess.Ended migrate(DeviceFault fault) throws Exception {
    long start = System.nanoTime();
    InProcess.Ended ended;
    try (InProcess both = new InProcess(fault.folder())) {
      String address = both.receive();
      ended = both.run(migrate(fault.guest(), "--to", address));
    }
    System.out.printf(
        "lab: %s in %.1f s: %s%n", fault, (System.nanoTime() - start) / 1e9, ended.summary());
    return ended;
  }
}
