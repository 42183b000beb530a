package dev.tidemark.bench.qemu;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.gson.JsonParser;
import org.junit.jupiter.api.Test;

class MigrationInfoTest {
  private static MigrationInfo of(String json) {
    return MigrationInfo.of(JsonParser.parseString(json).getAsJsonObject());
  }

  @Test
  void hasTheNumbersOfACompletedOne() {
    MigrationInfo info =
        of(
            """
            {"status": "completed", "setup-time": 1, "downtime": 206, "total-time": 363,
             "ram": {"total": 1074397184, "postcopy-requests": 0, "dirty-sync-count": 3,
              "multifd-bytes": 1006633456, "pages-per-second": 2147000, "downtime-bytes": 8340096,
              "page-size": 4096, "remaining": 0, "postcopy-bytes": 0, "mbps": 22310.5,
              "transferred": 1007924621, "dirty-sync-missed-zero-copy": 0,
              "precopy-bytes": 999584525, "duplicate": 17402, "dirty-pages-rate": 0,
              "normal-bytes": 1004539904, "normal": 245249}}
            """);
    assertEquals(
        new MigrationInfo("completed", 363, 1, 206, 1_007_924_621, 17_402, 245_249, 3, ""), info);
    assertTrue(info.isCompleted());
    assertFalse(info.isFailed());
  }

  @Test
  void whatIsMissingIsNotKnown() {
    assertEquals(new MigrationInfo("", -1, -1, -1, -1, -1, -1, -1, ""), of("{}"));
    MigrationInfo active = of("{\"status\": \"active\", \"total-time\": 9, \"ram\": {}}");
    assertFalse(active.isCompleted() || active.isFailed());
    assertEquals(-1, active.downtimeMillis());
  }

  @Test
  void aFailureHasItsReason() {
    MigrationInfo failed = of("{\"status\": \"failed\", \"error-desc\": \"connection reset\"}");
    assertTrue(failed.isFailed());
    assertEquals("connection reset", failed.error());
  }
}
