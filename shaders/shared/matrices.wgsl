// Cooperative matrices of SIDE rows and columns, and what is staged for their factors.
//
// Asks of the importing file: SIDE, and BITS of a factor, which stand in these lines once the kernel is specialised: see `factors` in
// specialise.rs. Source: SPV_KHR_cooperative_matrix.

alias Element = f32;
alias Left = coop_mat8x8<f32, A>;
alias Right = coop_mat8x8<f32, B>;
alias Sum = coop_mat8x8<f32, C>;
