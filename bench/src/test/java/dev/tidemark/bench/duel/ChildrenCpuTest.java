package dev.tidemark.bench.duel;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.Test;

class ChildrenCpuTest {
  @Test
  void takesTheRightFieldsWhateverTheNameIs() {
    String stat =
        "42 (a) b (c d) S 1 42 42 0 -1 4194560 100 200 0 0 11 22 333 444 20 0 30 0 12345 999 888\n";
    assertEquals(7.77, ChildrenCpu.seconds(stat), 1e-9);
  }

  @Test
  void countsAChildThatHasEnded() throws Exception {
    double before = ChildrenCpu.seconds();
    String burn = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done";
    assertEquals(0, new ProcessBuilder("sh", "-c", burn).start().waitFor());
    assertTrue(ChildrenCpu.seconds() > before);
  }
}
